"""Ridge and prior of the closed form, chosen in folds without solving for its maps.

How x → √S U'P x and y → √S V'Q y rank titles needs no singular vectors: the product of the two is
x'P M Q y, the title's square y'Q (M'M)^½ Q y, and the picture's length changes no rank. All of it
happens in the span of the videos that are looked at, but for the prior, which reaches beyond: there
the root is taken of what of M'M lies in the span. For M'M's own root that is an upper bound
(Jensen's operator inequality: Hansen and Pedersen 2003, doi:10.1112/S0024609303002200); with as
many videos as directions the span is everything, and nothing is estimated.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.linalg import multi_dot
from numpy.typing import NDArray

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.learning.closed_form import ClosedForm, Maps, Whitened
from thumbtune.learning.evaluation import rank_candidates
from thumbtune.learning.pooled import Matrix, Pooled, span_of
from thumbtune.metrics import PRIMARY, described


def best_form(
    forms: Sequence[ClosedForm],
    known: Pooled,
    folds: NDArray[np.intp],
    untouched: Maps,
    centred: Collection[Kind],
) -> ClosedForm:
    """The form whose mean MRR is highest, each video ranked by what its fold has not taught.

    Args:
        known: all that may be looked at.
        folds: the fold of each, shape (videos,).
        centred: as in `Whitened`.
    """
    span, gain = Span(known, untouched), described(PRIMARY).metric.gain
    gained = np.zeros(len(forms))
    for fold in np.unique(folds):
        held_out, texts = folds == fold, known.texts[folds == fold]
        learned = Learned(span, ~held_out, centred)
        for place, form in enumerate(forms):
            images, titles = (v.astype(np.float32) for v in learned.embedded(form, held_out))
            gained[place] += gain(rank_candidates(images, titles, texts, texts).rank).sum()
    return forms[int(gained.argmax())]


class Span:
    """What the videos' pooled outputs span, and what the untouched projections do beyond."""

    def __init__(self, known: Pooled, untouched: Maps) -> None:
        whole, bases = untouched.maps, {kind: span_of(known.outputs[kind]) for kind in KINDS}
        self.widths = {kind: len(basis) for kind, basis in bases.items()}
        self.outputs = {kind: known.outputs[kind] @ bases[kind] for kind in KINDS}
        self.inside = {kind: whole[kind] @ bases[kind] for kind in KINDS}
        outside = {
            kind: whole[kind] @ whole[kind].T - inside @ inside.T
            for kind, inside in self.inside.items()
        }
        self.reaching: dict[Kind, Matrix] = {
            "image": self.inside["image"].T @ outside["text"] @ self.inside["image"],
            "text": self.inside["text"].T @ outside["image"] @ self.inside["text"],
        }
        """Of W'V, what leads from the span out of it, times its transpose."""
        self.beyond = float((outside["image"] * outside["text"]).sum())
        """Square of the norm of what of W'V has neither end in the span."""


class Learned:
    """What some videos of a span teach."""

    def __init__(self, span: Span, rows: NDArray[np.bool_], centred: Collection[Kind]) -> None:
        self.span = span
        pooled = {kind: values[rows] for kind, values in span.outputs.items()}
        self.white = Whitened(pooled, span.inside, centred, span.widths)
        axes, inside = self.white.axes, span.inside
        ends = axes["image"].T, inside["image"].T, inside["text"], axes["text"]
        self.before: Matrix = multi_dot(ends)
        """W'V within the span."""
        self.reaching = {kind: axes[kind].T @ span.reaching[kind] @ axes[kind] for kind in KINDS}

    def embedded(self, form: ClosedForm, rows: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        """Pictures of any length and titles of length 1, shape (rows, directions) each."""
        white = self.white
        p, q = (white.whitener(kind, form.ridge) for kind in KINDS)
        told, before = white.told(form.ridge), self.before / np.outer(p, q)
        reaching, square = self._beyond(form, p, q)
        length = np.sqrt(max(np.square(before).sum() + square, 0.0))  # rounding may pass zero
        weight = form.prior * np.linalg.norm(told) / (length or 1.0)
        mixed = (1 - form.prior) * told + weight * before
        squares, axes = np.linalg.eigh(mixed.T @ mixed + weight**2 * reaching)
        squares, axes = squares[-white.dimensions :], axes[:, -white.dimensions :]
        images = (self._seen("image", rows) * p) @ mixed @ axes
        titles = (self._seen("text", rows) * q) @ axes
        lengths = np.sqrt(np.square(titles) @ np.sqrt(squares.clip(min=0)))
        return images, titles / np.maximum(lengths, np.finfo(float).tiny)[:, None]

    def _beyond(self, form: ClosedForm, p: Matrix, q: Matrix) -> tuple[Matrix, float]:
        """What of the prior leads from outside into the titles' span, times its transpose; and the
        square of the norm of all that is not within the span."""
        image, text = (self.white.floor(kind, form.ridge) for kind in KINDS)
        reaching = image * self.reaching["text"] / np.outer(q, q)
        other = text * (self.reaching["image"].diagonal() / p**2).sum()
        return reaching, float(reaching.trace() + other + image * text * self.span.beyond)

    def _seen(self, kind: Kind, rows: NDArray[np.bool_]) -> Matrix:
        """Along the directions of what is learned from, shape (rows, directions)."""
        moved: Matrix = self.span.outputs[kind][rows] - self.white.means[kind]
        return moved @ self.white.axes[kind]
