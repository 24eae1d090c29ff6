"""Do videos whose title and thumbnail fit better get more views? Mostly not, and so it is told.

Old videos have had more time, and a channel grows, so views are compared with those of videos that
were published about when this one was.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from thumbtune.channel.views import Views
from thumbtune.data.thumbnails import Example
from thumbtune.learning.intervals import NORMAL, Interval

NEIGHBOURS = 20
"""Videos, half of them before and half after, that a video is compared with."""
SETTLED = timedelta(days=7)
"""In its first days a video's views double within hours, and tell its age more than anything."""
LEAST = 20
"""Videos; of fewer nothing is told."""


class FitAndViews(NamedTuple):
    """Whether fit and views go together on a channel."""

    videos: int
    correlation: float
    """Spearman's, of the cosines of title and thumbnail with the views relative to videos of like
    age."""
    interval: Interval
    """95 %."""
    read: str
    """The day on which the views were read."""

    @property
    def says(self) -> str:
        """What that means, with its figures."""
        low, high = self.interval
        figures = (
            f"rank correlation {self.correlation:+.2f}, 95 % {low:+.2f} to {high:+.2f}, over "
            f"{self.videos} videos, with their views on {self.read}"
        )
        if low <= 0 <= high:
            return f"Fit and views: no signal ({figures})."
        more = "more" if self.correlation > 0 else "less"
        return (
            "Fit and views: videos whose title and thumbnail fit better were watched "
            f"{more} than others of like age ({figures}). One need not be the cause of the other."
        )


def relative_views(examples: Sequence[Example], views: Views) -> dict[str, float]:
    """Id of a video → its views as a multiple of the median of videos of like age.

    A video without a count or a date, or that was a few days old when it was read, is left out.
    """
    dates = {row.id: _date(row) for row in examples if row.id in views.counts}
    last = views.read_at - SETTLED
    known = sorted((date, id_) for id_, date in dates.items() if date and date <= last)
    counts = np.array([views.counts[id_] for _, id_ in known], float)
    if len(counts) < 2:
        return {}
    return {id_: _relative(counts, place) for place, (_, id_) in enumerate(known)}


def _relative(counts: NDArray[np.float64], place: int) -> float:
    """A count among others in the order of their dates; 1 is added, for a video may have none."""
    width = min(NEIGHBOURS, len(counts) - 1)
    start = min(max(0, place - width // 2), len(counts) - 1 - width)
    around = np.delete(counts[start : start + width + 1], place - start)
    return float((counts[place] + 1) / (np.median(around) + 1))


def _date(example: Example) -> datetime | None:
    try:
        date = datetime.fromisoformat(example.published_at or "")
    except ValueError:
        return None
    return date if date.tzinfo else None


def fit_and_views(
    fits: Mapping[str, float], examples: Sequence[Example], views: Views | None
) -> FitAndViews | None:
    """How fit and views go together; None where too little is known.

    Args:
        fits: id of a video → cosine of its title and thumbnail, by a model that has not learned
            from it.
    """
    relative = relative_views(examples, views) if views else {}
    both = sorted(fits.keys() & relative.keys())
    if views is None or len(both) < LEAST:
        return None
    pairs = np.array([(fits[id_], relative[id_]) for id_ in both])
    if np.ptp(pairs, axis=0).min() == 0:  # there is nothing to rank
        return None
    rho = float(spearmanr(*pairs.T).statistic)
    return FitAndViews(len(both), rho, rank_interval(rho, len(both)), f"{views.read_at:%Y-%m-%d}")


def rank_interval(rho: float, videos: int) -> Interval:
    """95 % of a rank correlation (Bonett & Wright 2000, doi:10.1007/BF02294183)."""
    error = np.sqrt((1 + rho**2 / 2) / (videos - 3))
    middle = np.arctanh(np.clip(rho, -0.9999, 0.9999))  # of ±1 it has none
    low, high = np.tanh([middle - NORMAL * error, middle + NORMAL * error]).tolist()
    return low, high
