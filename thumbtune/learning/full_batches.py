"""The ranking loss on all pairs at once, of the two projections alone: no dataloader."""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.learning.closed_form import Maps, Matrix

SCALE = 20.0
"""Factor on the cosine similarities, as in sentence-transformers' loss."""


class FullBatches(BaseModel):
    """How long and how fast."""

    model_config = ConfigDict(frozen=True)

    steps: int = Field(gt=0)
    pace: float = Field(gt=0)
    """Adam's first step in shares of a weight's typical size; it falls to zero linearly."""


def train_on_all(
    maps: Maps, pooled: dict[Kind, Matrix], texts: NDArray[np.intp], how: FullBatches
) -> Maps:
    """Let each thumbnail pick its title among all, and each title its thumbnail (CLIP's own loss).

    Args:
        maps: where it begins; the means stay.
        pooled: outputs of the towers, shape (pairs, width) each.
        texts: number of each pair's title, equal for equal titles, shape (pairs,); pairs of equal
            titles are no negatives of each other.
    """
    inputs = {kind: _tensor(pooled[kind] - maps.means[kind]) for kind in KINDS}
    weights = {kind: _tensor(maps.maps[kind]).requires_grad_() for kind in KINDS}
    groups = [
        {"params": weight, "lr": how.pace * float(weight.detach().square().mean().sqrt())}
        for weight in weights.values()
    ]
    optimizer = torch.optim.Adam(groups)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / how.steps)
    numbers = torch.from_numpy(texts)
    others = (numbers[:, None] == numbers) & ~torch.eye(len(numbers), dtype=torch.bool)
    for _ in range(how.steps):
        images, titles = (normalize(inputs[kind] @ weights[kind].T) for kind in KINDS)
        scores = (SCALE * images @ titles.T).masked_fill(others, float("-inf"))
        own = torch.arange(len(scores))
        loss = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    trained = {kind: weight.detach().double().numpy() for kind, weight in weights.items()}
    return maps._replace(maps=trained)


def _tensor(values: Matrix) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
