"""A start in closed form: regularised CCA with the untouched projections as prior.

Canonical correlation analysis finds the two linear maps under which titles and their thumbnails
correlate most (Hotelling 1936; of embeddings: CSA, arXiv:2410.07610). Some dozens of pairs do not
tell hundreds of directions, so the covariances get a ridge, and the cross-covariance is mixed with
what the untouched projections hold to be alike.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.clip.head import Head

Matrix = NDArray[np.float64]

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


class Moments(NamedTuple):
    """Sums over pairs of pooled outputs; those of two sets add up to those of both."""

    pairs: int
    images: Matrix
    """Sum of the pictures' vectors, shape (width of images,)."""
    texts: Matrix
    image_products: Matrix
    """Sum of outer products, shape (width of images, width of images)."""
    text_products: Matrix
    cross_products: Matrix
    """Shape (width of images, width of texts)."""

    @classmethod
    def of(cls, images: Matrix, texts: Matrix) -> Self:
        """Of pairs: images, shape (pairs, width of images), and texts, of its own width."""
        sums = images.sum(axis=0), texts.sum(axis=0)
        return cls(len(images), *sums, images.T @ images, texts.T @ texts, images.T @ texts)

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """Of the pairs of several sets."""
        return cls(*(sum(values) for values in zip(*parts, strict=True)))


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
        moments: of the pairs that are learned from.
        projections: of the untouched model, shape (dimensions, width) each.
        centred: the kinds whose mean is subtracted; a model may have no place for that.
    """

    def __init__(
        self,
        moments: Moments,
        projections: dict[Kind, Matrix],
        centred: Collection[Kind] = KINDS,
    ) -> None:
        pairs = moments.pairs
        image, text = moments.images / pairs, moments.texts / pairs
        self.dimensions = len(projections["image"])
        self.means: dict[Kind, Matrix] = {
            kind: mean if kind in centred else np.zeros_like(mean)
            for kind, mean in zip(KINDS, (image, text), strict=True)
        }
        self.variances: dict[Kind, Matrix] = {}
        self.axes: dict[Kind, Matrix] = {}
        a, b = self.means["image"], self.means["text"]
        covariances = (
            _about(moments.image_products / pairs, image, image, a, a),
            _about(moments.text_products / pairs, text, text, b, b),
        )
        for kind, covariance in zip(KINDS, covariances, strict=True):
            variances, self.axes[kind] = np.linalg.eigh(covariance)
            self.variances[kind] = variances.clip(min=0)
        cross = _about(moments.cross_products / pairs, image, text, a, b)
        self.cross = self.axes["image"].T @ cross @ self.axes["text"]
        untouched = projections["image"].T @ projections["text"]
        self.prior = self.axes["image"].T @ untouched @ self.axes["text"]

    def solve(self, chosen: ClosedForm) -> Maps:
        """The maps; with the whole weight on the prior, the untouched cosines but for the means.

        With whiteners P and Q, M = P C Q for the cross-covariance C and Z = P⁻¹ W'V Q⁻¹ for the
        untouched W and V, scaled to the norm of M; of (1 - γ) M + γ Z = U S V' the maps are
        √S U' P and √S V' Q.
        """
        image, text = (self._whitener(kind, chosen.ridge) for kind in KINDS)
        told = image[:, None] * self.cross * text
        before = self.prior / image[:, None] / text
        before *= np.linalg.norm(told) / (np.linalg.norm(before) or 1.0)
        u, s, v = _singular((1 - chosen.prior) * told + chosen.prior * before, self.dimensions)
        roots = np.sqrt(s)
        maps: dict[Kind, Matrix] = {
            "image": (self.axes["image"] @ (image[:, None] * u * roots)).T,
            "text": (self.axes["text"] @ (text[:, None] * v * roots)).T,
        }
        return Maps(self.means, maps)

    def _whitener(self, kind: Kind, ridge: float) -> Matrix:
        variances = self.variances[kind]
        floor = ridge * (variances.mean() or 1.0)  # of a single picture there is no variance
        whitener: Matrix = (variances + floor) ** -0.5
        return whitener


def _about(products: Matrix, x: Matrix, y: Matrix, a: Matrix, b: Matrix) -> Matrix:
    """Mean of the outer products of X - a and Y - b.

    Args:
        products: mean of those of X and Y.
        x, y: the means of X and Y.
    """
    moved: Matrix = products - np.outer(a, y) - np.outer(x, b) + np.outer(a, b)
    return moved


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
