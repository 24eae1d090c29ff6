"""A fit in words, and which fits are too close to call."""

from collections.abc import Sequence
from typing import NamedTuple

from thumbtune.use.matching import Fit

NOTHING = "does not describe this picture"
FAR = 5.0
"""Percentile among the channel's own pairs; what is below does not belong together."""

WEAK = 25.0
LEVELS = (
    (75.0, "fits better than most of your videos"),
    (WEAK, "fits like your typical video"),
    (FAR, "fits less well than most of your videos"),
    (0.0, NOTHING),
)
"""Percentile among the channel's own pairs → what it says from there on. On the bundled channel
97 % of other videos' titles are below 5."""


def in_words(percentile: float) -> str:
    """What a percentile among the channel's own pairs says of a title and a picture."""
    return next(words for least, words in LEVELS if percentile >= least)


class Answer(NamedTuple):
    """What a ranking of titles comes to."""

    says: str
    leading: int
    """How many of the first titles are in front, too close to tell them apart; 0 if none fits."""


def answer_of(fits: Sequence[Fit], close: float) -> Answer:
    """What a ranking says at a glance.

    Args:
        fits: the best first.
        close: see `Matcher.close`.
    """
    first, *others = fits
    words = in_words(first.percentile or 0)
    if words == NOTHING:
        none = "None of these titles describes" if others else "This title does not describe"
        return Answer(f"{none} this picture.", 0)
    ties = [fit for fit in others if first.cosine - fit.cosine < close]
    if not others:
        return Answer(f"This title {words}.", 1)
    if ties:
        return Answer(f"Too close to call: the first {1 + len(ties)} titles.", 1 + len(ties))
    ahead = "ahead, but it" if (first.percentile or 0) < WEAK else "ahead: it"
    return Answer(f"The first title is {ahead} {words}.", 1)
