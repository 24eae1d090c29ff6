"""The ranking loss on full batches: held to a plain loop, which trains one by one."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from tests.pooled_outputs import drawn
from thumbtune.clip.ends import KINDS, Kind
from thumbtune.learning.closed_form import Maps
from thumbtune.learning.full_batches import FullBatches, train_on_all
from thumbtune.learning.pooled import Pooled

STEPS = FullBatches(steps=40, pace=0.01)


def training(pairs: int, widths: tuple[int, int], seed: int) -> tuple[Maps, Pooled]:
    """Maps to begin with and pairs to learn from; two are of equal title."""
    outputs, maps = drawn(pairs, widths, 5, seed)
    means = {kind: values.mean(axis=0) for kind, values in outputs.items()}
    return Maps(means, maps), Pooled(outputs, np.maximum(np.arange(pairs), 1))


def clips_loss(images: torch.Tensor, titles: torch.Tensor) -> torch.Tensor:
    scores = 20 * normalize(images) @ normalize(titles).T
    scores[0, 1] = scores[1, 0] = float("-inf")  # of equal title
    own = torch.arange(len(scores))
    return (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2


def loss_of(maps: Maps, pooled: Pooled) -> float:
    images, titles = (torch.tensor(maps.embed(kind, pooled.outputs[kind])) for kind in KINDS)
    return float(clips_loss(images, titles))


def plain_adam(start: Maps, pooled: Pooled) -> dict[Kind, np.ndarray]:
    """The whole maps in their own coordinates, in double precision."""
    inputs = {kind: torch.tensor(pooled.outputs[kind] - start.means[kind]) for kind in KINDS}
    weights = {kind: torch.tensor(start.maps[kind], requires_grad=True) for kind in KINDS}
    sizes = {
        kind: float(weight.detach().square().mean().sqrt()) for kind, weight in weights.items()
    }
    optimizer = torch.optim.Adam([{"params": weights[kind]} for kind in KINDS])
    for step in range(STEPS.steps):
        for group, kind in zip(optimizer.param_groups, KINDS, strict=True):
            group["lr"] = STEPS.pace * sizes[kind] * (1 - step / STEPS.steps)
        loss = clips_loss(*(inputs[kind] @ weights[kind].T for kind in KINDS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {kind: weight.detach().numpy() for kind, weight in weights.items()}


def test_of_as_many_pairs_as_directions_the_maps_are_adams_own() -> None:
    start, pooled = training(24, (8, 6), 0)
    (trained,) = train_on_all([start], [pooled], STEPS)
    for kind, expected in plain_adam(start, pooled).items():
        moved = np.abs(expected - start.maps[kind]).max()
        assert np.abs(trained.maps[kind] - expected).max() < 1e-3 * moved
        assert np.array_equal(trained.means[kind], start.means[kind])


def test_of_fewer_pairs_the_loss_falls_as_far_and_nothing_moves_that_no_pair_tells_of() -> None:
    start, pooled = training(12, (90, 70), 1)
    (trained,) = train_on_all([start], [pooled], STEPS)
    plain = start._replace(maps=plain_adam(start, pooled))
    begun, ours, theirs = (loss_of(maps, pooled) for maps in (start, trained, plain))
    assert theirs < 0.5 * begun
    assert abs(ours - theirs) < 0.2 * theirs
    for kind in KINDS:
        moved = trained.maps[kind] - start.maps[kind]
        told = pooled.outputs[kind] - start.means[kind]
        _, _, axes = np.linalg.svd(told)
        untold = axes[len(told) - 1 :]  # the mean took one direction
        assert np.abs(moved @ untold.T).max() < 1e-9 * np.abs(moved).max()


def test_trainings_of_unequal_sizes_do_together_what_each_does_alone() -> None:
    some = [training(24, (30, 9), 0), training(17, (30, 9), 1), training(8, (30, 9), 2)]
    starts, learned = zip(*some, strict=True)
    together = train_on_all(starts, learned, STEPS)
    for start, pooled, trained in zip(starts, learned, together, strict=True):
        (alone,) = train_on_all([start], [pooled], STEPS)
        for kind in KINDS:
            moved = np.abs(alone.maps[kind] - start.maps[kind]).max()
            assert np.abs(trained.maps[kind] - alone.maps[kind]).max() < 1e-3 * moved
