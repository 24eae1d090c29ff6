"""Champion and challenger: who is promoted, and why."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbtune.learning.evaluation import Prediction
from thumbtune.learning.promotion import (
    PairedDifference,
    Rule,
    compare,
    judge,
    paired_difference,
)


def answers(ranks: list[int], similarity: float = 0.5) -> list[Prediction]:
    return [
        Prediction(
            split="test",
            video_id=str(n),
            rank=rank,
            similarity=similarity,
            top_title="a",
            top_similarity=0.5,
        )
        for n, rank in enumerate(ranks)
    ]


def difference(challenger: list[int], champion: list[int]) -> PairedDifference:
    return paired_difference("champion", answers(challenger, 0.6), answers(champion), "MRR")


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
        ([1] * 40, [2] * 40, {"not_worse", "higher", "better"}),
        ([1] * 40, [1] * 40, {"not_worse", "higher"}),
        ([2] + [1] * 39, [1] * 40, {"not_worse"}),
        ([2] * 40, [1] * 40, set()),
        ([2] + [1] * 4, [1] + [2] + [1] * 3, {"higher"}),  # five videos show no non-inferiority
    ],
)
def test_each_rule_draws_its_own_line(
    challenger: list[int], champion: list[int], passed: set[Rule]
) -> None:
    rules: tuple[Rule, ...] = ("not_worse", "higher", "better")
    measured = difference(challenger, champion)
    assert {rule for rule in rules if judge([measured], rule, 0.1)[0]} == passed
    for rule in rules:
        why = judge([measured], rule, 0.1)[1]
        assert "against the champion's" in why
        assert f"the rule `{rule}`" in why


def test_the_challenger_must_stand_against_the_untouched_model_too() -> None:
    better, worse = difference([1] * 20, [2] * 20), difference([2] * 20, [1] * 20)
    assert judge([better, worse], "higher")[0] is False
    assert judge([], "better") == (
        True,
        "promoted by the rule `better`: nothing to compare with",
    )


@pytest.mark.parametrize(
    ("challenger", "champion", "told"),
    [
        ([1] * 40, [2] * 40, "promoted by the rule `not_worse`: "),
        ([1] * 40, [1] * 40, "in use by the rule `not_worse`, though no different from the cham"),
        ([2, 1] * 60, [1, 2] * 60, "in use by the rule `not_worse`, though no better than the ch"),
        ([2] + [1] * 39, [1] * 40, "in use by the rule `not_worse`, though lower than the champi"),
        ([999] * 40, [1000] * 40, "in use by the rule `not_worse`, though no better than the cha"),
    ],
)
def test_only_what_measures_better_is_called_promoted(
    challenger: list[int], champion: list[int], told: str
) -> None:
    promoted, why = judge([difference(challenger, champion)], "not_worse", 0.1)
    assert promoted
    assert why.startswith(told)
    assert ("promoted" in why) is told.startswith("promoted")


def test_each_reservation_is_told_and_so_is_a_champion_that_cannot_be_measured() -> None:
    lower, alike = difference([2] + [1] * 39, [1] * 40), difference([1] * 40, [1] * 40)
    alike = alike.model_copy(update={"opponent": "untouched"})
    _, why = judge([lower, alike], "not_worse", 0.1, "not compared with the champion")
    assert "though lower than the champion and no different from the untouched model: MRR" in why
    assert why.endswith("; not compared with the champion")
    _, why = judge([alike], "better", 0.1, "not compared with the champion")
    assert why.endswith("fails the rule `better`; not compared with the champion")


@given(ranks=st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_equal_answers_are_never_an_improvement(ranks: list[int]) -> None:
    assert difference(ranks, ranks).reservation == "no different from the champion"


def test_videos_that_the_champion_learned_from_do_not_count_for_it() -> None:
    challenger, champion, untouched = answers([3, *[1] * 20]), answers([2] * 21), answers([4] * 21)
    differences, apart = compare(challenger, untouched, champion, {"0", "x"}, "MRR")
    against_champion, against_untouched = differences
    assert (against_champion.videos, against_champion.challenger) == (20, 1)
    assert against_untouched.videos == 21
    assert apart == ""


def test_a_champion_that_has_learned_from_nearly_all_videos_is_not_met() -> None:
    challenger, champion, untouched = answers([1] * 21), answers([1] * 21), answers([2] * 21)
    differences, apart = compare(challenger, untouched, champion, {"0", "1"}, "MRR")
    assert [each.opponent for each in differences] == ["untouched"]
    assert apart == (
        "not compared with the champion, which has learned from all but 19 of the 21 videos (20 "
        "others are needed)"
    )
    everything = {str(number) for number in range(21)}
    _, apart = compare(challenger, untouched, champion, everything, "MRR")
    assert "which has learned from all 21 videos" in apart
    differences, apart = compare(challenger, untouched, None, set(), "MRR")
    assert (len(differences), apart) == (1, "")


def test_a_champion_that_has_learned_from_all_is_met_by_what_it_answered_out_of_its_folds() -> None:
    out_of_fold = [
        each.model_copy(update={"split": "out_of_fold"}) for each in answers([1, 2] * 20)
    ]
    challenger = [each.model_copy(update={"rank": 4}) for each in out_of_fold]
    everything = {each.video_id for each in challenger}

    def met(judged: list[Prediction]) -> list[tuple[str, float, float]]:
        found, _ = compare(challenger, challenger, [], everything, "MRR", None, judged)
        return [(each.opponent, each.challenger, each.other) for each in found]

    assert met(out_of_fold)[0] == ("champion", 0.25, 0.75)
    for others in (out_of_fold[1:], [*out_of_fold, *answers([1] * 50)[40:]]):
        assert [opponent for opponent, *_ in met(others)] == ["untouched"]


def test_videos_that_belong_together_widen_the_interval_of_a_difference() -> None:
    challenger, untouched = answers([1, 1, 2, 2] * 8), answers([2, 2, 1, 1] * 8)
    pairs = {str(n): n // 2 for n in range(32)}
    [alone], [together] = (
        compare(challenger, untouched, None, set(), "MRR", groups)[0] for groups in (None, pairs)
    )
    assert together.difference == alone.difference
    assert together.interval[1] - together.interval[0] > 1.3 * (
        alone.interval[1] - alone.interval[0]
    )


def test_the_same_model_is_kept_as_it_was_by_every_rule() -> None:
    same = paired_difference("untouched", answers([1, 2, 9]), answers([1, 2, 9]), "MRR")
    rules: tuple[Rule, ...] = ("not_worse", "higher", "better")
    for rule in rules:
        said = (False, "kept as it was: its answers are those of the untouched model")
        assert judge([same], rule, 0.5) == said


TRIALS = 200


def by_rule(rule: Rule) -> Callable[[PairedDifference], bool]:
    return lambda found: judge([found], rule, 0.05)[0]


def reaches_zero(found: PairedDifference) -> bool:
    """The default rule of 0.1: the interval of the difference reaches zero."""
    return found.interval[1] >= 0


def promoted_share(
    is_promoted: Callable[[PairedDifference], bool], lower_by: float, videos: int = 200
) -> float:
    """How often a challenger is promoted that has a lower MRR than the champion, by chance alone.

    Both models rank as those of small channels do: half of the videos first, others anywhere; on
    some videos the challenger is moved down from the first rank, so many as make the difference.
    """
    draw = np.random.default_rng(0)
    promoted = 0
    for _ in range(TRIALS):
        champion = np.where(draw.random(videos) < 0.5, 1, draw.integers(2, 20, videos))
        shaken = draw.random(videos) < 0.3  # of the challenger another rank, neither up nor down
        others = np.where(draw.random(videos) < 0.5, 1, draw.integers(2, 20, videos))
        challenger = np.where(shaken, others, champion)
        down = (challenger == 1) & (draw.random(videos) < 2 * lower_by / (1 - 1 / 6))
        challenger = np.where(down, 6, challenger)
        found = difference(challenger.tolist(), champion.tolist())
        promoted += is_promoted(found)
    return promoted / TRIALS


def test_a_worse_challenger_is_mostly_not_promoted_though_it_was_before() -> None:
    rules: tuple[Rule, ...] = ("higher", "better", "not_worse")
    for rule in rules:
        assert promoted_share(by_rule(rule), lower_by=0.05) <= 0.1
    assert promoted_share(reaches_zero, lower_by=0.05) > 0.5
    assert promoted_share(by_rule("higher"), lower_by=0.0) == pytest.approx(0.5, abs=0.15)


def test_with_a_dozen_videos_fewer_worse_challengers_are_promoted_too() -> None:
    before = promoted_share(reaches_zero, lower_by=0.05, videos=12)
    assert promoted_share(by_rule("higher"), lower_by=0.05, videos=12) < before / 2
