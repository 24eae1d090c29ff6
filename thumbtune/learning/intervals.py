"""95 % intervals of measures over videos, which hold what they promise with a dozen videos too.

(The percentile bootstrap does not: of eleven videos its 95 % are 86 to 89.)
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Interval = tuple[float, float]
TAIL = 0.975  # both sides leave 2.5 % out
NORMAL = float(norm.ppf(TAIL))


def share_interval(hits: NDArray[np.bool_]) -> Interval:
    """Of the share of videos that are hits, shape (videos,) (Wilson 1927)."""
    return _wilson(float(hits.mean()), len(hits), NORMAL)


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Of the mean of reciprocal ranks, shape (videos,).

    Wilson's interval, with Student's t, of as many videos as would give a share of the same mean
    the same spread: the mean ± its standard error would reach beyond 0 and 1. It is reckoned as if
    one video more had been ranked first, since a model that hits seldom may not have done so here.
    """
    with_a_hit = np.append(values, 1.0)
    mean, spread = float(with_a_hit.mean()), float(with_a_hit.var(ddof=1))
    as_many = mean * (1 - mean) / spread if spread else 1.0  # all first
    low, high = _wilson(mean, as_many * len(values), _student(len(values)))
    return min(low, float(values.mean())), high  # the hit may have moved it past what was measured


def paired_interval(differences: NDArray[np.float64], step: float) -> Interval:
    """Of the mean difference of two models' values from 0 to 1, shape (videos,).

    Student's, as if one video more had risen by a step and one had fallen: two models that agree on
    all of a dozen videos may differ on the next. (With a step of 1, of shares of hits, this is
    Bonett & Price 2012, doi:10.3102/1076998611411915, but for Student's quantile.)
    """
    with_both = np.append(differences, [step, -step])
    mean = float(with_both.mean())
    error = float(np.sqrt(with_both.var(ddof=1) / len(with_both)))
    reach = _student(len(differences)) * error
    return max(-1.0, mean - reach), min(1.0, mean + reach)


def _wilson(share: float, videos: float, quantile: float) -> Interval:
    noise = quantile**2 / videos
    middle = share + noise / 2
    reach = np.sqrt(noise * share * (1 - share) + noise**2 / 4)
    low, high = (middle - reach) / (1 + noise), (middle + reach) / (1 + noise)
    return max(0.0, float(low)), min(1.0, float(high))


def _student(videos: int) -> float:
    return float(t.ppf(TAIL, max(videos - 1, 1)))
