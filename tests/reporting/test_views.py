"""Views beside fit: what is compared with what, and that noise is not called a signal."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tests.reporting.test_report import PARAMETERS, reported, stored
from thumbtune.channel.registry import Registry
from thumbtune.channel.views import Views, keep_views, views_of
from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import Prediction
from thumbtune.reporting.views import (
    LEAST,
    NEIGHBOURS,
    FitAndViews,
    fit_and_views,
    rank_interval,
    relative_views,
)
from thumbtune.store.workspace import Workspace

READ_AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


def video(number: int, age_days: float = 0) -> Example:
    published = READ_AT - timedelta(days=age_days or 10 + number)
    return Example(
        id=f"v{number}",
        title=f"Title {number}",
        thumbnails={},
        published_at=published.isoformat(),
        split="test",
        title_neg=None,
        image="a.png",
    )


def channel(count: int) -> list[Example]:
    return [video(number) for number in range(count)]


def views(counts: list[int]) -> Views:
    return Views(read_at=READ_AT, counts={f"v{n}": count for n, count in enumerate(counts)})


@given(counts=st.lists(st.integers(0, 10**9), min_size=2, max_size=40))
def test_views_are_a_multiple_of_the_median_of_the_videos_before_and_after(
    counts: list[int],
) -> None:
    relative = relative_views(channel(len(counts)), views(counts))
    assert len(relative) == len(counts)
    for place, count in enumerate(counts):
        others = sorted(
            (number for number in range(len(counts)) if number != place),
            key=lambda number, place=place: abs(number - place),  # type: ignore[misc]
        )
        if 10 <= place < len(counts) - 10 or len(counts) <= NEIGHBOURS:
            around = [counts[number] for number in others[:NEIGHBOURS]]
            assert relative[f"v{place}"] == pytest.approx((count + 1) / (np.median(around) + 1))


def test_a_video_without_a_count_or_a_date_or_of_this_week_is_left_out() -> None:
    rows = [*channel(3), video(3, age_days=2), video(4), video(5)]
    rows[4] = rows[4].model_copy(update={"published_at": None})
    rows[5] = rows[5].model_copy(update={"published_at": "yesterday"})
    known = Views(read_at=READ_AT, counts=dict.fromkeys(("v0", "v2", "v3", "v4", "v5"), 100))
    assert set(relative_views(rows, known)) == {"v0", "v2"}


def test_a_channel_that_grows_has_no_signal_of_its_age() -> None:
    """Fit and views both rise with time here, and have nothing else to do with each other."""
    rng = np.random.default_rng(3)
    growth = np.exp(-np.arange(400) / 60)
    counts = (1e6 * growth * rng.lognormal(0, 0.5, 400)).astype(int).tolist()
    fits = {f"v{n}": float(0.5 * growth[n] + rng.normal(0, 0.2)) for n in range(400)}
    found = fit_and_views(fits, channel(400), views(counts))
    assert found
    assert found.interval[0] < 0 < found.interval[1]
    assert found.says.startswith("Fit and views: no signal (rank correlation ")
    assert found.says.endswith("over 400 videos, with their views on 2026-11-25).")


@pytest.mark.parametrize("sign", [1, -1])
def test_a_signal_is_told_with_its_direction_and_that_it_need_be_no_cause(sign: int) -> None:
    rng = np.random.default_rng(4)
    fits = rng.normal(0, 1, 200)
    counts = (1e5 * np.exp(sign * fits + rng.normal(0, 1, 200))).astype(int).tolist()
    by_id = {f"v{n}": float(fit) for n, fit in enumerate(fits)}
    found = fit_and_views(by_id, channel(200), views(counts))
    assert found
    assert f"watched {'more' if sign > 0 else 'less'} than others of like age" in found.says
    assert "need not be the cause" in found.says
    relative = relative_views(channel(200), views(counts))
    ranks = [rankdata([each[f"v{n}"] for n in range(200)]) for each in (by_id, relative)]
    assert found.correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_the_interval_holds_what_it_promises_for_no_correlation_and_for_one() -> None:
    rng = np.random.default_rng(5)
    for rho in (0.0, 0.5):
        held = 0
        true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a normal pair
        for _ in range(1000):
            x = rng.normal(size=40)
            y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=40)
            measured = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
            low, high = rank_interval(measured, 40)
            held += low <= true <= high
        assert 0.93 <= held / 1000 <= 0.975


def test_of_too_few_videos_or_of_equal_ones_nothing_is_told() -> None:
    def told(count: int, fit: float = 0.0) -> FitAndViews | None:
        fits = {f"v{n}": fit or n / 100 for n in range(count)}
        return fit_and_views(fits, channel(count), views([7**n % 1000 for n in range(count)]))

    assert told(LEAST - 1) is None
    assert told(LEAST) is not None
    assert told(LEAST, fit=0.5) is None
    assert fit_and_views({"v0": 1.0}, channel(30), None) is None


@pytest.mark.usefixtures("prefect_harness")
def test_the_report_tells_it_and_links_to_what_the_model_answered(workspace: Workspace) -> None:
    arguments = list(stored(workspace, ["=SUM(1)", *(f"Title {n}" for n in range(39))]))
    rows = [
        row.model_copy(update={"published_at": video(n).published_at})
        for n, row in enumerate(workspace.read_table(arguments[3], Example))
    ]
    answers = [
        answer.model_copy(update={"similarity": n / 40})
        for n, answer in enumerate(workspace.read_table(arguments[8].predictions, Prediction))
    ]
    arguments[3] = workspace.write_table("examples", rows)
    predictions = workspace.write_table("predictions", answers)
    arguments[8] = arguments[8].model_copy(update={"predictions": predictions})
    registry = Registry(workspace, PARAMETERS.source, PARAMETERS.channel)
    keep_views(registry, views([10 * (n + 1) for n in range(40)]))
    kept = views_of(registry)
    assert kept
    assert kept.counts["v3"] == 40

    folder = workspace.root / reported(*arguments).folder
    page = (folder / "report.html").read_text()
    assert "Fit and views: " in page
    assert "with their views on 2026-11-25" in page
    assert 'href="https://www.youtube.com/watch?v=v0"' in page
    assert 'href="predictions.csv"' in page
    first, second, *_ = (folder / "predictions.csv").read_text().splitlines()
    assert first == "video_id,title,rank,cosine,first_title,first_cosine"
    assert second == "v0,'=SUM(1),2,0.0000,Chosen | instead,0.9000"


def test_a_damaged_reading_counts_as_none(workspace: Workspace) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    assert views_of(registry) is None
    keep_views(registry, views([1, 2]))
    (workspace.root / registry.path / "views.json").write_text('{"read_at": "2026"')
    assert views_of(registry) is None
