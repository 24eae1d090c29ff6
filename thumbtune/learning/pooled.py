"""What enters the last linear maps of the untouched model, whatever these are trained to."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.clip.features import image_key, title_key
from thumbtune.clip.head import Head
from thumbtune.data.thumbnails import Example
from thumbtune.text.titles import number_titles

Matrix = NDArray[np.float64]

ROUNDING = 1e-12
"""Share of the largest eigenvalue of the rows' products; of rows whose mean is subtracted one is
not zero by rounding alone, and Adam, blind to scale, would walk along it."""

AT_ONCE = 1024
"""Inputs that pass through the end of a tower together."""


class Pooled(NamedTuple):
    """What enters the projections of the untouched model, of some videos."""

    outputs: dict[Kind, Matrix]
    """Shape (videos, width) each."""
    texts: NDArray[np.intp]
    """Number of each video's title, equal for equal titles, shape (videos,)."""

    @classmethod
    def of(cls, head: SentenceTransformer, examples: Sequence[Example]) -> Self:
        """Of examples, by a head on their stored features."""
        keys = {
            "image": [image_key(example) for example in examples],
            "text": [title_key(example.title) for example in examples],
        }
        end = end_of(head)
        outputs = {kind: pooled_of(end, keys[kind]).cpu().double().numpy() for kind in KINDS}
        return cls(outputs, number_titles([example.title for example in examples]))

    def some(self, rows: NDArray[np.intp]) -> Self:
        """Those of some rows."""
        outputs = {kind: values[rows] for kind, values in self.outputs.items()}
        return self._replace(outputs=outputs, texts=self.texts[rows])


@torch.no_grad()
def pooled_of(head: Head, keys: Sequence[str]) -> Tensor:
    """What enters a projection, of the features of keys, shape (keys, width)."""
    starts = range(0, len(keys), AT_ONCE)
    return torch.cat([head.pooled(head.preprocess(keys[a : a + AT_ONCE])) for a in starts])


def end_of(model: SentenceTransformer) -> Head:
    """The module of a head on stored features."""
    head = model[0]
    assert isinstance(head, Head)
    return head


def span_of(rows: Matrix) -> Matrix:
    """Orthonormal columns that span the rows, shape (width, at most width).

    The coordinates' own where there are as many rows.
    """
    pairs, width = rows.shape
    if pairs >= width:
        return np.eye(width)
    products, sides = np.linalg.eigh(rows @ rows.T)
    basis, _ = np.linalg.qr(rows.T @ sides[:, products > ROUNDING * products[-1]])
    return np.asarray(basis, np.float64)
