"""Champion and challenger: who is promoted, and why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbtune.learning.evaluation import Prediction
from thumbtune.learning.promotion import (
    NothingToCompareOnError,
    PairedDifference,
    Rule,
    compare,
    judge,
    paired_difference,
)


def answers(ranks: list[int]) -> list[Prediction]:
    return [
        Prediction(
            split="test",
            video_id=str(n),
            rank=rank,
            similarity=0.5,
            top_title="a",
            top_similarity=0.5,
        )
        for n, rank in enumerate(ranks)
    ]


def difference(challenger: list[int], champion: list[int]) -> PairedDifference:
    return paired_difference("champion", answers(challenger), answers(champion), "MRR")


def test_the_difference_is_taken_video_by_video() -> None:
    measured = difference([1, 2, 4, 1], [2, 2, 4, 2])
    assert measured.difference == pytest.approx(0.25)
    assert measured.challenger == pytest.approx((1 + 1 / 2 + 1 / 4 + 1) / 4)
    shuffled = paired_difference(
        "champion", answers([1, 2, 4, 1]), answers([2, 2, 4, 2])[::-1], "MRR"
    )
    assert shuffled == measured
    recall = paired_difference(
        "untouched", answers([1, 2, 4, 1]), answers([2, 2, 4, 2]), "Recall@1"
    )
    assert (recall.challenger, recall.other) == (0.5, 0)


@given(ranks=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=30))
def test_the_interval_holds_the_difference_and_turns_with_the_sides(
    ranks: list[tuple[int, int]],
) -> None:
    ours, theirs = [a for a, _ in ranks], [b for _, b in ranks]
    measured, turned = difference(ours, theirs), difference(theirs, ours)
    low, high = measured.interval
    assert low <= measured.difference + 1e-9
    assert measured.difference <= high + 1e-9
    assert np.allclose((low, high), (-turned.interval[1], -turned.interval[0]))


@pytest.mark.parametrize(
    ("challenger", "champion", "passed"),
    [
        ([1] * 20, [2] * 20, {"not_worse", "higher", "better"}),
        ([1] * 20, [1] * 20, {"not_worse", "higher"}),
        ([2] + [1] * 19, [1] * 20, {"not_worse"}),
        ([2] * 20, [1] * 20, set()),
    ],
)
def test_each_rule_draws_its_own_line(
    challenger: list[int], champion: list[int], passed: set[Rule]
) -> None:
    rules: tuple[Rule, ...] = ("not_worse", "higher", "better")
    measured = difference(challenger, champion)
    assert {rule for rule in rules if judge([measured], rule)[0]} == passed
    for rule in rules:
        why = judge([measured], rule)[1]
        assert "against the champion's" in why
        assert f"the rule `{rule}`" in why


def test_the_challenger_must_stand_against_the_untouched_model_too() -> None:
    better, worse = difference([1] * 20, [2] * 20), difference([2] * 20, [1] * 20)
    assert judge([better, worse], "not_worse")[0] is False
    assert judge([], "better") == (
        True,
        "promoted by the rule `better`: nothing to compare with",
    )


@pytest.mark.parametrize(
    ("challenger", "champion", "told"),
    [
        ([1] * 20, [2] * 20, "promoted by the rule `not_worse`: "),
        ([1, 2, 3], [1, 2, 3], "in use by the rule `not_worse`, though no different from the cham"),
        ([2, 1, 3], [1, 2, 3], "in use by the rule `not_worse`, though no better than the champ"),
        ([2] + [1] * 19, [1] * 20, "in use by the rule `not_worse`, though lower than the champi"),
        ([999] * 3, [1000] * 3, "in use by the rule `not_worse`, though no better than the champ"),
    ],
)
def test_only_what_measures_better_is_called_promoted(
    challenger: list[int], champion: list[int], told: str
) -> None:
    promoted, why = judge([difference(challenger, champion)], "not_worse")
    assert promoted
    assert why.startswith(told)
    assert ("promoted" in why) is told.startswith("promoted")


def test_each_reservation_is_told_and_so_is_a_champion_that_cannot_be_measured() -> None:
    lower, alike = difference([2] + [1] * 19, [1] * 20), difference([1] * 3, [1] * 3)
    alike = alike.model_copy(update={"opponent": "untouched"})
    _, why = judge([lower, alike], "not_worse", "not compared with the champion")
    assert "though lower than the champion and no different from the untouched model: MRR" in why
    assert why.endswith("; not compared with the champion")
    _, why = judge([alike], "better", "not compared with the champion")
    assert why.endswith("fails the rule `better`; not compared with the champion")


@given(ranks=st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_equal_answers_are_never_an_improvement(ranks: list[int]) -> None:
    assert difference(ranks, ranks).reservation == "no different from the champion"


def test_videos_that_the_champion_learned_from_do_not_count_for_it() -> None:
    challenger, champion, untouched = answers([3, 1, 1]), answers([1, 2, 2]), answers([4, 4, 4])
    against_champion, against_untouched = compare(
        challenger, untouched, champion, {"0", "x"}, "MRR"
    )
    assert (against_champion.videos, against_champion.challenger) == (2, 1)
    assert against_untouched.videos == 3
    with pytest.raises(NothingToCompareOnError, match="learned from all 3 videos"):
        compare(challenger, untouched, champion, {"0", "1", "2"}, "MRR")
    assert len(compare(challenger, untouched, None, set(), "MRR")) == 1
