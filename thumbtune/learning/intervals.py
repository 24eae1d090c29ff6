"""95 % intervals of measures over videos, which hold what they promise with a dozen videos too.

(The percentile bootstrap does not: of eleven videos its 95 % are 86 to 89.)

Videos that belong together, such as those of one title, answer alike and tell less than as many
that do not. By so much as sums over whole groups scatter more than those of single videos
(`design_effect`, Kish 1965) there are fewer videos in an interval: what a resampling of whole
groups comes to.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Interval = tuple[float, float]
TAIL = 0.975  # both sides leave 2.5 % out
NORMAL = float(norm.ppf(TAIL))


def design_effect(values: NDArray[np.float64], groups: NDArray[np.intp] | None) -> float:
    """How many videos count for one: 1 if each is a group of its own, and never less.

    Args:
        values: one a video, shape (videos,).
        groups: equal numbers for videos that belong together, shape (videos,).
    """
    if groups is None:
        return 1.0
    _, place = np.unique(groups, return_inverse=True)
    videos, count = len(values), int(place.max()) + 1
    if count == 1:
        return float(videos)
    apart = values - values.mean()
    alone = float((apart**2).sum()) * videos / (videos - 1)
    together = float((np.bincount(place, apart) ** 2).sum()) * count / (count - 1)
    return max(1.0, together / alone) if alone else videos / count


def share_interval(hits: NDArray[np.bool_], effect: float = 1.0) -> Interval:
    """Of the share of videos that are hits, shape (videos,) (Wilson 1927).

    Args:
        effect: how many videos count for one, see `design_effect`; so in all that follow.
    """
    return _wilson(float(hits.mean()), len(hits) / effect, NORMAL)


def mean_interval(values: NDArray[np.float64], effect: float = 1.0) -> Interval:
    """Of the mean of reciprocal ranks, shape (videos,).

    Wilson's interval, with Student's t, of as many videos as would give a share of the same mean
    the same spread: the mean ± its standard error would reach beyond 0 and 1. It is reckoned as if
    one video more had been ranked first, since a model that hits seldom may not have done so here.
    """
    with_a_hit = np.append(values, 1.0)
    mean, spread = float(with_a_hit.mean()), float(with_a_hit.var(ddof=1))
    as_many = mean * (1 - mean) / spread if spread else 1.0  # all first
    videos = len(values) / effect
    low, high = _wilson(mean, as_many * videos, _student(videos))
    return min(low, float(values.mean())), high  # the hit may have moved it past what was measured


def paired_interval(differences: NDArray[np.float64], step: float, effect: float = 1.0) -> Interval:
    """Of the mean difference of two models' values from 0 to 1, shape (videos,).

    Student's, as if one video more had risen by a step and one had fallen: two models that agree on
    all of a dozen videos may differ on the next. (With a step of 1, of shares of hits, this is
    Bonett & Price 2012, doi:10.3102/1076998611411915, but for Student's quantile.)
    """
    with_both = np.append(differences, [step, -step])
    mean = float(with_both.mean())
    error = float(np.sqrt(with_both.var(ddof=1) / len(with_both) * effect))
    reach = _student(len(differences) / effect) * error
    return max(-1.0, mean - reach), min(1.0, mean + reach)


def _wilson(share: float, videos: float, quantile: float) -> Interval:
    noise = quantile**2 / videos
    middle = share + noise / 2
    reach = np.sqrt(noise * share * (1 - share) + noise**2 / 4)
    low, high = (middle - reach) / (1 + noise), (middle + reach) / (1 + noise)
    return max(0.0, float(low)), min(1.0, float(high))


def _student(videos: float) -> float:
    return float(t.ppf(TAIL, max(videos - 1, 1)))
