"""The ranking loss on all pairs at once, of the two projections alone: no dataloader."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.learning.closed_form import Maps
from thumbtune.learning.pooled import Matrix, Pooled, span_of

SCALE = 20.0
"""Factor on the cosine similarities, as in sentence-transformers' loss."""

NO_TITLE = -1
"""Number of a row that fills a set of pairs up to the size of the largest."""


class FullBatches(BaseModel):
    """How long and how fast."""

    model_config = ConfigDict(frozen=True)

    steps: int = Field(gt=0)
    pace: float = Field(gt=0)
    """Adam's first step in shares of a weight's typical size; it falls to zero linearly."""


def train_on_all(starts: Sequence[Maps], learned: Sequence[Pooled], how: FullBatches) -> list[Maps]:
    """Let each thumbnail pick its title among all, and each title its thumbnail (CLIP's own loss).

    Several trainings take their steps together, since most of a small one's step is bookkeeping.
    Pairs of equal titles are no negatives of each other.

    Args:
        starts: where each begins; the means stay.
        learned: the pairs of each.
    """
    sides = {kind: _Side(kind, starts, learned) for kind in KINDS}
    others = _no_rivals(_stacked([pairs.texts for pairs in learned], NO_TITLE))
    optimizer = torch.optim.Adam([side.moved for side in sides.values()], how.pace, fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / how.steps)
    own = torch.arange(others.shape[1]).repeat(2 * len(others))
    for _ in range(how.steps):
        images, titles = (normalize(side.embedded, dim=-1) for side in sides.values())
        scores = (SCALE * images @ titles.mT).masked_fill(others, float("-inf"))
        both = torch.cat([scores.flatten(0, 1), scores.mT.flatten(0, 1)])
        optimizer.zero_grad()
        cross_entropy(both, own, reduction="sum").backward()
        optimizer.step()
        falling.step()
    trained = zip(*(side.maps() for side in sides.values()), strict=True)
    return [
        start._replace(maps=dict(zip(KINDS, maps, strict=True)))
        for start, maps in zip(starts, trained, strict=True)
    ]


class _Side:
    """The maps of one kind of all trainings, in coordinates of the span of what each learns from.

    With fewer pairs than directions that is a small part of a map, and no other moves. Adam steps
    as it would in the coordinates of the whole: these are turned at random, so that none is
    special, and a step is longer by the root of how many fewer they are.
    """

    def __init__(self, kind: Kind, starts: Sequence[Maps], learned: Sequence[Pooled]) -> None:
        inputs = [
            pairs.outputs[kind] - start.means[kind]
            for start, pairs in zip(starts, learned, strict=True)
        ]
        self.starts = [start.maps[kind] for start in starts]
        self.bases = [_turned(span_of(each)) for each in inputs]
        steps = [
            np.sqrt(np.square(start).mean() * len(basis) / basis.shape[1])
            for start, basis in zip(self.starts, self.bases, strict=True)
        ]
        based = list(zip(inputs, self.starts, self.bases, strict=True))
        self.inputs = _stacked([each @ basis for each, _, basis in based]).float()
        self.begun = _stacked([start @ basis for _, start, basis in based]).float()
        self.step = torch.tensor(steps, dtype=torch.float32)[:, None, None]
        self.moved = torch.zeros_like(self.begun, requires_grad=True)
        """In steps; Adam is blind to the scale of a gradient."""

    @property
    def embedded(self) -> Tensor:
        """Shape (trainings, pairs, dimensions)."""
        return self.inputs @ (self.begun + self.step * self.moved).mT

    def maps(self) -> list[Matrix]:
        """Of each training, shape (dimensions, width)."""
        moved = (self.step * self.moved).detach().double().numpy()
        return [
            start + each[:, : basis.shape[1]] @ basis.T
            for start, each, basis in zip(self.starts, moved, self.bases, strict=True)
        ]


def _turned(basis: Matrix) -> Matrix:
    """Another basis of the same part of a space, turned at random; of the whole space, as it is."""
    width, directions = basis.shape
    if directions == width:
        return basis
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(directions, directions)))
    return basis @ turn


def _stacked(arrays: Sequence[NDArray], filler: float = 0) -> Tensor:
    """Arrays of unequal sizes, each filled up to the largest at its ends."""
    most = np.max([array.shape for array in arrays], axis=0)
    filled = [
        np.pad(array, [(0, lacking) for lacking in most - array.shape], constant_values=filler)
        for array in arrays
    ]
    return torch.from_numpy(np.stack(filled))


def _no_rivals(numbers: Tensor) -> Tensor:
    """Which pairs of rows are not compared, shape (trainings, rows, rows): those of equal titles,
    and those that fill up, which keep their own column alone and so lose nothing."""
    equal = numbers[:, :, None] == numbers[:, None]
    filling = numbers == NO_TITLE
    apart = equal | filling[:, :, None] | filling[:, None]
    return apart & ~torch.eye(numbers.shape[1], dtype=torch.bool)
