"""Give each title a negative, the title that must not win against it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from thumbtune.data.splits import SplitVideo
from thumbtune.errors import UserError
from thumbtune.parameters import SPLITS, NegativesParameters
from thumbtune.text.titles import number_titles

BLOCK = 512
"""Rows of the similarity matrix held at a time: 200 MB at 100,000 titles."""

Embeddings = NDArray[np.float32]
Rows = NDArray[np.intp]


class Pair(SplitVideo):
    """A video with its negative title."""

    title_neg: str | None
    """None when negatives.method is `none`."""


class NoNegativeError(UserError, ValueError):
    """No negative can be found as asked."""


def pair_titles(
    videos: Sequence[SplitVideo],
    parameters: NegativesParameters,
    seed: int,
    embed: Callable[[list[str]], Embeddings],
    images: Embeddings | None = None,
) -> list[Pair]:
    """Give each video its negative title; the order of the videos stays.

    Args:
        videos: rows of all splits.
        embed: titles → unit vectors, shape (titles, dimensions); called for methods that compare.
        images: for `clip`, the videos' thumbnails as unit vectors, shape (videos, dimensions), of
            the model by which `embed` embeds.

    Raises:
        NoNegativeError: all titles that a negative may come from are equal, or `given` has none.
    """
    negatives: list[str | None] = [None] * len(videos)
    if parameters.method == "given":
        negatives = _given(videos)
    elif parameters.method != "none":
        titles = [video.title for video in videos]
        vectors = np.zeros((len(titles), 0), np.float32)
        if parameters.method != "random":
            vectors = embed(titles)
        anchors = vectors if images is None else images
        for rows in _scopes(videos, parameters.scope):
            among = [titles[row] for row in rows]
            chosen = _mine(among, vectors[rows], anchors[rows], parameters, seed)
            for row, other in zip(rows, chosen, strict=True):
                negatives[row] = titles[rows[other]]
    return [
        Pair(**video.model_dump(exclude={"title_neg"}), title_neg=negative)
        for video, negative in zip(videos, negatives, strict=True)
    ]


def _scopes(videos: Sequence[SplitVideo], scope: str) -> list[Rows]:
    """The groups of rows within which negatives are looked for."""
    if scope == "before_split":
        return [np.arange(len(videos))]
    splits = np.array([video.split for video in videos])
    return [np.flatnonzero(splits == split) for split in SPLITS]


def _given(videos: Sequence[SplitVideo]) -> list[str | None]:
    missing = sum(video.title_neg is None for video in videos)
    if missing:
        raise NoNegativeError(
            f"negatives.method is `given`, but {missing} of {len(videos)} videos came without "
            "title_neg. Choose negatives.method least_similar, hard, clip, random or none."
        )
    return [video.title_neg for video in videos]


def _mine(
    titles: Sequence[str],
    vectors: Embeddings,
    anchors: Embeddings,
    parameters: NegativesParameters,
    seed: int,
) -> Rows:
    texts = number_titles(titles)
    if len(texts) and texts.max() == 0:
        raise NoNegativeError(
            f"negatives: all {len(titles)} titles that a negative may come from are the same "
            f"({titles[0]!r}). Set negatives.method to none, or negatives.scope to before_split."
        )
    match parameters.method:
        case "least_similar":
            return least_similar(vectors, texts)
        case "hard":
            return hardest_below(vectors, vectors, texts, np.full(len(texts), parameters.ceiling))
        case "clip":
            own = np.einsum("ij,ij->i", anchors, vectors)
            return hardest_below(anchors, vectors, texts, own - parameters.margin)
    return random_other(texts, seed)


def least_similar(vectors: Embeddings, texts: Rows) -> Rows:
    """The article's negatives: row by row the least similar title that no earlier row has taken.

    Where that leaves a row with its own title only (a flaw of the article's loop), it swaps with
    the earlier row that loses least; the result stays a permutation whenever one exists by such
    swaps. Otherwise the row shares its least similar title.

    Args:
        vectors: unit vectors, shape (titles, dimensions).
        texts: equal numbers for equal titles, shape (titles,); at least two differ.

    Returns:
        The row of each row's negative, shape (titles,); never one of equal text.
    """
    rows = len(texts)
    members = _members(texts)
    taken = np.zeros(rows, bool)
    negatives = np.full(rows, -1)
    for start in range(0, rows, BLOCK):
        free = np.flatnonzero(~taken)
        place = np.full(rows, -1)
        place[free] = np.arange(len(free))
        similarities = vectors[start : start + BLOCK] @ vectors[free].T
        for row, candidates in enumerate(similarities, start):
            own = place[members[texts[row]]]
            candidates[own[own >= 0]] = np.inf
            best = int(candidates.argmin())
            if candidates[best] < np.inf:
                negatives[row] = free[best]
                taken[free[best]] = True
                similarities[:, best] = np.inf
    for own, left in zip(np.flatnonzero(negatives < 0), np.flatnonzero(~taken), strict=True):
        _swap_in(int(own), int(left), negatives, vectors, texts)
    return negatives


def _swap_in(row: int, left: int, negatives: Rows, vectors: Embeddings, texts: Rows) -> None:
    """Give `row` an earlier row's negative, and that one the title that was left over."""
    served = negatives >= 0
    loss = np.full(len(texts), np.inf)
    to_row, to_left = vectors @ vectors[row], vectors @ vectors[left]
    now = np.einsum("ij,ij->i", vectors, vectors[negatives])
    allowed = served & (texts[negatives] != texts[row]) & (texts != texts[left])
    loss[allowed] = (to_row[negatives] + to_left - now)[allowed]
    best = int(loss.argmin())
    if np.isfinite(loss[best]):
        negatives[row], negatives[best] = negatives[best], left
    else:
        to_row[texts == texts[row]] = np.inf
        negatives[row] = int(to_row.argmin())


def hardest_below(
    anchors: Embeddings, vectors: Embeddings, texts: Rows, ceilings: NDArray[np.floating]
) -> Rows:
    """Hard negatives: the most similar title below a row's ceiling, which keeps out those that are
    as right as its own (arXiv:2407.15831).

    A row for which all other titles reach its ceiling gets the least similar of them.

    Args:
        anchors: what titles are compared with, unit vectors, shape (titles, dimensions): the titles
            themselves, or their thumbnails.
        vectors: of the titles, of the same shape.
        texts: equal numbers for equal titles, shape (titles,); at least two differ.
        ceilings: cosine similarities, shape (titles,).
    """
    members = _members(texts)
    negatives = np.empty(len(texts), np.intp)
    for start in range(0, len(texts), BLOCK):
        similarities = anchors[start : start + BLOCK] @ vectors.T
        for row, candidates in enumerate(similarities, start):
            below = np.where(candidates < ceilings[row], candidates, -np.inf)
            below[members[texts[row]]] = -np.inf
            negatives[row] = below.argmax()
            if below[negatives[row]] == -np.inf:
                candidates[members[texts[row]]] = np.inf
                negatives[row] = candidates.argmin()
    return negatives


def random_other(texts: Rows, seed: int) -> Rows:
    """A random row of another text for each row, all of them equally likely.

    Args:
        texts: equal numbers for equal titles, shape (titles,); at least two differ.
    """
    order = np.argsort(texts, kind="stable")  # equal texts stand together
    sizes = np.bincount(texts)
    end_of_own = np.cumsum(sizes)[texts]
    draw = np.random.default_rng(seed).integers(0, len(texts) - sizes[texts])
    return order[(end_of_own + draw) % len(texts)]


def _members(texts: Rows) -> list[Rows]:
    """For each text, the rows that have it."""
    order = np.argsort(texts, kind="stable")
    return np.split(order, np.cumsum(np.bincount(texts))[:-1])
