"""The champion in the field: videos that came after it, among as many titles as before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_channel import add_version
from thumbtune.channel.field_scores import FieldScore, keep_score, last_scores
from thumbtune.channel.registry import Registry, Version
from thumbtune.data.thumbnails import Example
from thumbtune.learning.field import gains_among, gallery_of, score_later
from thumbtune.store.workspace import Workspace


@given(
    ahead=st.integers(0, 12), behind=st.integers(0, 12), gallery=st.integers(2, 30), seed=st.just(0)
)
def test_a_gain_is_the_mean_over_all_draws_of_other_titles(
    ahead: int, behind: int, gallery: int, seed: int
) -> None:
    pool = np.array([True] * ahead + [False] * behind)
    draw = np.random.default_rng(seed)
    drawn = min(gallery - 1, len(pool))
    ranks = np.array([1 + draw.permutation(pool)[:drawn].sum() for _ in range(2000)])
    for metric, gains in (("MRR", 1 / ranks), ("Recall@1", ranks == 1)):
        [ours] = gains_among(np.array([ahead]), np.array([len(pool)]), gallery, metric)
        assert ours == pytest.approx(gains.mean(), abs=0.04)


def of_later_videos(workspace: Workspace, version: Version, later: int) -> Version:
    """The same as if its run had not listed the last videos."""
    rows = workspace.read_table(version.examples, Example)
    return version.model_copy(
        update={"seen": [row.id for row in rows[:-later]], "metrics": {"MRR": 0.5}}
    )


def test_a_champion_is_scored_on_the_videos_that_its_run_has_not_listed(
    workspace: Workspace,
) -> None:
    version = add_version(workspace)
    assert score_later(workspace, version, version.examples, "float32", 1) is None
    score = score_later(
        workspace, of_later_videos(workspace, version, 6), version.examples, "float32", 1
    )
    assert score
    rows = workspace.read_table(version.examples, Example)
    before = {row.title for row in rows[:-6]}
    new = [row.id for row in rows[-6:] if row.title not in before]
    assert 4 <= len(new) <= 6
    assert score.videos == new
    assert score.gallery == 10 == gallery_of(workspace, version)  # of an old record: its test split
    low, high = score.intervals["MRR"]
    assert 0 <= low <= score.metrics["MRR"] <= high <= 1
    assert score.promised == {"MRR": 0.5}


def score(number: int, promised: float, videos: list[str]) -> FieldScore:
    return FieldScore.model_validate(
        {
            "number": number,
            "version": 1,
            "at": "2026-01-01T00:00:00Z",
            "videos": videos,
            "gallery": 10,
            "metrics": {"MRR": 0.4},
            "intervals": {"MRR": (0.3, 0.5)},
            "promised": {"MRR": promised},
        }
    )


def test_it_has_drifted_where_the_whole_interval_lies_below_what_it_measured() -> None:
    assert not score(1, 0.5, ["a"]).has_drifted
    assert score(1, 0.51, ["a"]).has_drifted
    assert str(score(1, 0.51, ["a"])) == (
        "MRR 0.400 (95 % 0.300 to 0.500) on 1 later videos, each among 10 titles; when it was "
        "trained 0.510, which it no longer reaches"
    )


def test_a_score_of_the_same_videos_is_kept_once(workspace: Workspace) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    assert keep_score(registry, score(1, 0.5, ["a"]))
    assert not keep_score(registry, score(2, 0.5, ["a"]))
    assert keep_score(registry, score(2, 0.5, ["a", "b"]))
    assert not keep_score(registry, score(2, 0.5, ["c"]))  # another run was faster
    assert last_scores(registry)[1].videos == ["a", "b"]
