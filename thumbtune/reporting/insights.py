"""What a report tells beyond its figures: slices of the channel, and videos to look at."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from thumbtune.data.splits import number_groups
from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import Prediction
from thumbtune.learning.intervals import Interval, design_effect, mean_interval

LEAST = 5
"""Videos of a slice; of fewer nothing is told."""

SHOWN = 6
LENGTHS = ((0, 30, "up to 30 characters"), (31, 60, "31 to 60"), (61, 10**6, "more than 60"))


class Slice(NamedTuple):
    """Some videos of the channel, and how they do."""

    by: str
    name: str
    videos: int
    recall_at_1: float
    mrr: float
    interval: Interval
    """95 % of the MRR; videos that belong together tell less."""


class Pair(NamedTuple):
    """A thumbnail, and what the model answered for it."""

    example: Example
    prediction: Prediction


class Alike(NamedTuple):
    """Videos that belong together, since they share a title or a picture."""

    examples: list[Example]


def slices(pairs: Sequence[Pair]) -> list[Slice]:
    """By year, the newest first, and by the length of the title."""
    return [
        *_sliced("year", pairs, lambda pair: (pair.example.published_at or "")[:4])[::-1],
        *_sliced("title", pairs, lambda pair: _length(pair.example.title)),
    ]


def _length(title: str) -> str:
    return next(name for low, high, name in LENGTHS if low <= len(title) <= high)


def _sliced(by: str, pairs: Sequence[Pair], key: Callable[[Pair], str]) -> list[Slice]:
    parts = defaultdict[str, list[Pair]](list)
    for pair in pairs:
        parts[key(pair)].append(pair)
    order = sorted(parts) if by == "year" else [name for *_, name in LENGTHS if name in parts]
    told = [_slice(by, name, parts[name]) for name in order if name and len(parts[name]) >= LEAST]
    return told if len(told) > 1 else []


def _slice(by: str, name: str, pairs: Sequence[Pair]) -> Slice:
    ranks = np.array([pair.prediction.rank for pair in pairs], float)
    gains = 1 / ranks
    effect = design_effect(gains, number_groups([pair.example for pair in pairs]))
    interval = mean_interval(gains, effect)
    return Slice(by, name, len(ranks), float((ranks == 1).mean()), float(gains.mean()), interval)


def mismatched(pairs: Sequence[Pair], gallery: float) -> list[Pair]:
    """Pairs that hardly belong together: the own title is in the worse half, and far behind."""
    far = [pair for pair in pairs if pair.prediction.rank > gallery / 2]
    far.sort(key=lambda pair: pair.prediction.similarity - pair.prediction.top_similarity)
    return far[:SHOWN]


def best(pairs: Sequence[Pair]) -> list[Pair]:
    """Thumbnails that find their title, and nearest to it; the nearest first."""
    found = [pair for pair in pairs if pair.prediction.rank == 1]
    return sorted(found, key=lambda pair: -pair.prediction.similarity)[:SHOWN]


def together(examples: Sequence[Example]) -> list[Alike]:
    """Videos that belong together, the largest groups first."""
    groups = defaultdict[int, list[Example]](list)
    for number, example in zip(number_groups(examples).tolist(), examples, strict=True):
        groups[number].append(example)
    found = [Alike(group) for group in groups.values() if len(group) > 1]
    return sorted(found, key=lambda alike: -len(alike.examples))[:SHOWN]
