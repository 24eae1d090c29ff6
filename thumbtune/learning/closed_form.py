"""A start in closed form: regularised CCA with the untouched projections as prior.

Canonical correlation analysis finds the two linear maps under which titles and their thumbnails
correlate most (Hotelling 1936; of embeddings: CSA, arXiv:2410.07610). Some dozens of pairs do not
tell hundreds of directions, so the covariances get a ridge, and the cross-covariance is mixed with
what the untouched projections hold to be alike.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from numpy.linalg import multi_dot
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.clip.head import Head
from thumbtune.learning.pooled import ROUNDING, Matrix

FAINT = 1e-6
"""Singular values below this share of the largest are rounding: eigenvalues of squares have half of
double precision's sixteen digits."""


class ClosedForm(BaseModel):
    """What the closed form leaves to choose."""

    model_config = ConfigDict(frozen=True)

    ridge: float = Field(gt=0)
    """Added to the variances, in shares of their mean."""
    prior: float = Field(ge=0, le=1)
    """Weight of the untouched projections against what the pairs tell."""


class Maps(NamedTuple):
    """Affine maps into the shared space: x → map (x - mean)."""

    means: dict[Kind, Matrix]
    """Shape (width,) each."""
    maps: dict[Kind, Matrix]
    """Shape (dimensions, width) each."""

    def embed(self, kind: Kind, pooled: Matrix) -> Matrix:
        """Of pooled outputs, shape (inputs, width): vectors, shape (inputs, dimensions)."""
        return (pooled - self.means[kind]) @ self.maps[kind].T


class Whitened:
    """Pairs in the directions of their covariances, from which maps follow for any ridge and prior.

    Args:
        pooled: what is learned from, shape (pairs, width) each.
        projections: of the untouched model, shape (dimensions, width) each.
        centred: the kinds whose mean is subtracted; a model may have no place for that.
        widths: of the whole space where all this is in coordinates of a part of it; then `axes` are
            all of that part's, else those alone along which the pairs vary.
    """

    def __init__(
        self,
        pooled: dict[Kind, Matrix],
        projections: dict[Kind, Matrix],
        centred: Collection[Kind] = KINDS,
        widths: dict[Kind, int] | None = None,
    ) -> None:
        self.projections, self.dimensions = projections, len(projections["image"])
        self.widths = widths or {kind: values.shape[1] for kind, values in pooled.items()}
        self.means: dict[Kind, Matrix] = {
            kind: values.mean(axis=0) * (kind in centred) for kind, values in pooled.items()
        }
        moved = {kind: pooled[kind] - self.means[kind] for kind in KINDS}
        self.variances: dict[Kind, Matrix] = {}
        self.axes: dict[Kind, Matrix] = {}
        for kind, values in moved.items():
            self.variances[kind], self.axes[kind] = _principal(values, every=widths is not None)
        sides = self.axes["image"].T, self.axes["text"]
        cross = moved["image"].T, moved["text"] / len(moved["text"])
        self.cross = multi_dot([sides[0], *cross, sides[1]])

    def solve(self, chosen: ClosedForm) -> Maps:
        """The maps; with the whole weight on the prior, the untouched cosines but for the means.

        With whiteners P and Q, M = P C Q for the cross-covariance C and Z = P⁻¹ W'V Q⁻¹ for the
        untouched W and V, scaled to the norm of M; of (1 - γ) M + γ Z = U S V' the maps are
        √S U' P and √S V' Q.
        """
        told = multi_dot([self.axes["image"], self.told(chosen.ridge), self.axes["text"].T])
        image, text = (
            self._times(kind, chosen.ridge, -1, self.projections[kind]) for kind in KINDS
        )
        before = image.T @ text
        before *= np.linalg.norm(told) / (np.linalg.norm(before) or 1.0)
        u, s, v = _singular((1 - chosen.prior) * told + chosen.prior * before, self.dimensions)
        sides: dict[Kind, Matrix] = {"image": u, "text": v}
        maps: dict[Kind, Matrix] = {
            kind: self._times(kind, chosen.ridge, 1, np.sqrt(s)[:, None] * side.T)
            for kind, side in sides.items()
        }
        return Maps(self.means, maps)

    def told(self, ridge: float) -> Matrix:
        """M in coordinates of the axes."""
        image, text = (self.whitener(kind, ridge) for kind in KINDS)
        return image[:, None] * self.cross * text

    def whitener(self, kind: Kind, ridge: float) -> Matrix:
        """What is multiplied along each axis, shape (axes,)."""
        return np.asarray((self.variances[kind] + self.floor(kind, ridge)) ** -0.5, np.float64)

    def _times(self, kind: Kind, ridge: float, power: int, rows: Matrix) -> Matrix:
        """Rows times a power of the whitener; where the pairs do not vary it is the ridge's."""
        elsewhere, axes = self.floor(kind, ridge) ** (-0.5 * power), self.axes[kind]
        more = self.whitener(kind, ridge) ** power - elsewhere
        return np.asarray(elsewhere * rows + (rows @ axes * more) @ axes.T, np.float64)

    def floor(self, kind: Kind, ridge: float) -> float:
        """What the ridge adds to each variance."""
        mean = float(self.variances[kind].sum()) / self.widths[kind]
        return ridge * (mean or 1.0)  # of a single picture there is no variance


def _principal(values: Matrix, every: bool) -> tuple[Matrix, Matrix]:
    """Variances about zero, and their directions as columns.

    Args:
        every: those too along which nothing varies.
    """
    pairs, width = values.shape
    if every or pairs >= width:
        variances, axes = np.linalg.eigh(values.T @ values / pairs)
        return variances.clip(min=0), axes
    variances, sides = np.linalg.eigh(values @ values.T / pairs)
    some = variances > ROUNDING * variances[-1]
    axes = values.T @ sides[:, some] / np.sqrt(pairs * variances[some])
    return variances[some], axes


def _singular(matrix: Matrix, most: int) -> tuple[Matrix, Matrix, Matrix]:
    """The largest singular values, shape (most,), and their vectors as columns, by eigenvectors.

    LAPACK's SVD takes five times as long at ViT-L/14's widths. Where there are fewer, or values are
    `FAINT`, the rest is zero.
    """
    if matrix.shape[0] < matrix.shape[1]:
        v, s, u = _singular(matrix.T, most)
        return u, s, v
    squares, right = np.linalg.eigh(matrix.T @ matrix)
    s, right = np.sqrt(squares[::-1].clip(min=0)), right[:, ::-1]
    s = np.where(s > FAINT * s[0], s, 0.0)[:most]
    right = right[:, :most]
    left = matrix @ right / np.where(s > 0, s, 1.0) * (s > 0)
    lacking = ((0, 0), (0, most - len(s)))
    return np.pad(left, lacking), np.pad(s, lacking[1]), np.pad(right, lacking)


def maps_of(head: Head) -> Maps:
    """The last linear maps as they are now."""
    maps = {kind: _values(linear.weight) for kind, (_, linear) in head.ends.items()}
    means = {kind: _subtracted(maps[kind], linear.bias) for kind, (_, linear) in head.ends.items()}
    return Maps(means, maps)


def _subtracted(weights: Matrix, bias: Tensor | None) -> Matrix:
    """The vector that is subtracted where a map adds a bias afterwards, shape (width,)."""
    if bias is None:
        return np.zeros(weights.shape[1])
    return np.asarray(np.linalg.lstsq(weights, -_values(bias))[0], np.float64)


def _values(tensor: Tensor) -> Matrix:
    return tensor.detach().cpu().double().numpy()


def fold(maps: Maps, head: Head) -> None:
    """Put maps into the last linear maps of a model and the biases of them or of what feeds them.

    What comes out of CLIP's last norm is lowered by the mean where its bias is: so the saved model
    is an ordinary CLIP. The biases are as they were when the pooled outputs were made.
    """
    with torch.no_grad():
        for kind, (_, linear) in head.ends.items():
            mean, bias = maps.means[kind], head.lowered.get(kind)
            if bias is not None and bias is linear.bias:
                bias.copy_(_like(-maps.maps[kind] @ mean, bias))
            elif bias is not None:
                bias.sub_(_like(mean, bias))
            linear.weight.copy_(_like(maps.maps[kind], linear.weight))


def _like(values: Matrix, other: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(other)
