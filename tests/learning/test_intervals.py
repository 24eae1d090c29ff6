"""95 % intervals hold the truth in 95 % of cases, with a dozen videos too."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, t

from thumbtune.learning.intervals import Interval, mean_interval, paired_interval, share_interval
from thumbtune.metrics import described

TRIALS = 3000
LEAST = 0.935
"""0.95, less what 3,000 trials leave open (two standard errors are 0.008)."""
LEAST_OF_SHARES = 0.9
"""Of a dozen videos a share has few values, so coverage swings (Brown, Cai & DasGupta 2001)."""

MODELS = {
    "ranks at random": lambda videos: np.ones(videos),
    "finds half at once": lambda videos: 0.5 ** np.arange(videos),
    "finds a few at once, others late": lambda videos: 1 / np.arange(1, videos + 1),
    "finds nearly all": lambda videos: np.array([40] + [2 / (videos - 1)] * (videos - 1)),
}
"""How often a model gives each rank, from the first."""

Values = NDArray[np.float64]


def covered(interval: Callable[[Values], Interval], trials: list[Values], truth: float) -> float:
    inside = [low <= truth <= high for low, high in map(interval, trials)]
    return float(np.mean(inside))


@pytest.mark.slow
@pytest.mark.parametrize("videos", [11, 40])
@pytest.mark.parametrize("model", MODELS)
def test_the_intervals_of_a_model_cover_what_it_would_do_on_all_videos(
    model: str, videos: int
) -> None:
    often = MODELS[model](videos) / MODELS[model](videos).sum()
    ranks = np.arange(1, videos + 1)
    rng = np.random.default_rng(0)
    trials = [rng.choice(ranks, videos, p=often) for _ in range(TRIALS)]
    mrr = [1 / ranks for ranks in trials]
    assert covered(mean_interval, mrr, float((often / ranks).sum())) >= LEAST
    for k in (1, 5):
        share = float(often[:k].sum())
        assert covered(share_interval, [ranks <= k for ranks in trials], share) >= LEAST_OF_SHARES


@pytest.mark.slow
@pytest.mark.parametrize("videos", [11, 40])
@pytest.mark.parametrize("moved", [0.0, 0.05, 0.3, 1.0])
def test_the_intervals_of_a_difference_cover_it(videos: int, moved: float) -> None:
    """Of a challenger that answers as the champion on some videos, and better on others."""
    ranks = np.arange(1, videos + 1)
    champion, better = (share ** np.arange(videos) for share in (0.7, 0.5))
    champion, better = champion / champion.sum(), better / better.sum()
    rng = np.random.default_rng(0)
    gain = moved * (better - champion)
    truths = {"MRR": float((gain / ranks).sum()), "Recall@1": float(gain[0])}
    differences: dict[str, list[Values]] = {"MRR": [], "Recall@1": []}
    for _ in range(TRIALS):
        theirs = rng.choice(ranks, videos, p=champion)
        new = rng.random(videos) < moved
        ours = np.where(new, rng.choice(ranks, videos, p=better), theirs)
        differences["MRR"].append(1 / ours - 1 / theirs)
        differences["Recall@1"].append((ours <= 1).astype(float) - (theirs <= 1))
    for metric, truth in truths.items():
        interval = partial(paired_interval, step=described(metric).metric.step)
        assert covered(interval, differences[metric], truth) >= LEAST


@given(hits=st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_share_has_wilsons_interval(hits: list[bool]) -> None:
    expected = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    assert share_interval(np.array(hits)) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(differences=st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=300))
def test_a_difference_of_shares_has_bonett_and_prices_with_students_quantile(
    differences: list[float],
) -> None:
    videos, won, lost = len(differences), differences.count(1), differences.count(-1)
    p, q = (won + 1) / (videos + 2), (lost + 1) / (videos + 2)
    reach = t.ppf(0.975, videos - 1) * np.sqrt((p + q - (p - q) ** 2) / (videos + 1))
    expected = max(-1, p - q - reach), min(1, p - q + reach)
    assert paired_interval(np.array(differences), 1.0) == pytest.approx(expected)


@given(ranks=st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_every_interval_holds_the_measured_value_and_stays_in_its_range(ranks: list[int]) -> None:
    rank = np.array(ranks)
    hits = (rank <= 1).astype(float)
    for interval, values, lowest in (
        (mean_interval, 1 / rank, 0),
        (share_interval, rank <= 1, 0),
        (partial(paired_interval, step=0.5), 1 / rank - 0.5, -1),
        (partial(paired_interval, step=1.0), hits - (rank % 2), -1),
    ):
        low, high = interval(values)
        assert lowest <= low <= values.mean() + 1e-9
        assert values.mean() - 1e-9 <= high <= 1


def test_what_all_of_a_few_videos_have_is_not_taken_for_what_all_videos_have() -> None:
    found = np.ones(11)
    assert share_interval(found > 0)[0] < 0.75
    assert mean_interval(found)[0] < 0.75
    assert paired_interval(np.zeros(11), 0.5)[0] < -0.1
