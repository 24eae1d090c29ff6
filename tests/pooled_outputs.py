"""What enters the projections of a CLIP, and the projections, drawn."""

import numpy as np

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.learning.pooled import Matrix


def drawn(
    pairs: int, widths: tuple[int, int], dimensions: int, seed: int
) -> tuple[dict[Kind, Matrix], dict[Kind, Matrix]]:
    """Pooled outputs of pictures and titles with something in common, shape (pairs, width) each,
    and two projections, shape (dimensions, width) each."""
    draw = np.random.default_rng(seed)
    common = draw.normal(size=(pairs, 3))
    outputs: dict[Kind, Matrix] = {}
    projections: dict[Kind, Matrix] = {}
    for kind, width in zip(KINDS, widths, strict=True):
        noise = draw.normal(size=(pairs, width))
        outputs[kind] = common @ draw.normal(size=(3, width)) + noise + 1.5
        projections[kind] = draw.normal(size=(dimensions, width))
    return outputs, projections
