"""The ranking loss on all pairs at once, of the two projections alone: no dataloader."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.linalg import multi_dot
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
    parts = [_Part(start, pairs) for start, pairs in zip(starts, learned, strict=True)]
    sides = {kind: _Side(kind, parts) for kind in KINDS}
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


class _Part:
    """Of one training the maps and what they are fed, in coordinates of all that a gradient moves.

    These are the span of what is learned from and, of the shared space, the span of what the maps
    make of it. Adam steps as it would in the coordinates of the whole: these are turned at random,
    so that none is special, and a step is longer by the root of how many fewer weights there are.
    """

    def __init__(self, start: Maps, learned: Pooled) -> None:
        fed = {kind: learned.outputs[kind] - start.means[kind] for kind in KINDS}
        self.start = start
        self.bases = {kind: _turned(span_of(fed[kind])) for kind in KINDS}
        based = {kind: start.maps[kind] @ self.bases[kind] for kind in KINDS}
        self.room = _turned(span_of(np.concatenate([based[kind].T for kind in KINDS])))
        self.inputs = {kind: fed[kind] @ self.bases[kind] for kind in KINDS}
        self.begun: dict[Kind, Matrix] = {kind: self.room.T @ based[kind] for kind in KINDS}
        self.steps = {kind: self._step(start.maps[kind], self.begun[kind]) for kind in KINDS}

    def _step(self, whole: Matrix, part: Matrix) -> float:
        """A weight's typical size, longer by the root."""
        return float(np.sqrt(np.square(whole).sum() / part.size))

    def whole(self, kind: Kind, moved: Matrix) -> Matrix:
        """A map that has moved, shape (dimensions, width)."""
        rows, columns = self.begun[kind].shape
        return self.start.maps[kind] + multi_dot(
            [self.room, moved[:rows, :columns], self.bases[kind].T]
        )


class _Side:
    """The maps of one kind of all trainings."""

    def __init__(self, kind: Kind, parts: Sequence[_Part]) -> None:
        self.kind, self.parts = kind, parts
        self.inputs = _stacked([part.inputs[kind] for part in parts]).float()
        self.begun = _stacked([part.begun[kind] for part in parts]).float()
        steps = [part.steps[kind] for part in parts]
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
        return [part.whole(self.kind, each) for part, each in zip(self.parts, moved, strict=True)]


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
