"""Promote the challenger to champion by a rule, on the same videos."""

import logging
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from thumbtune.channel.registry import Registry, Version
from thumbtune.data.splits import number_groups
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import UNTOUCHED
from thumbtune.learning.evaluation import OUT_OF_FOLD, Evaluation, Prediction
from thumbtune.learning.intervals import design_effect, paired_interval
from thumbtune.learning.known_videos import known_to
from thumbtune.metrics import described
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace

logger = logging.getLogger(__name__)

NOTHING_BETTER = "kept as it was: no recipe does better than the untouched model"

Opponent = Literal["champion", "untouched"]
Rule = Literal["higher", "better", "not_worse"]
OPPONENTS: dict[Opponent, str] = {"champion": "the champion", "untouched": "the untouched model"}
SAME = 1e-6
"""Cosines that differ by less are one: the same weights give it, by another order of the sums."""
ROUNDING = 1e-9
"""Means of equal ranks in another order differ by less."""
DECIMALS = 3
"""To which a difference is told; a smaller one is not called better."""


class PairedDifference(BaseModel):
    """A metric of two models on the same videos."""

    model_config = ConfigDict(frozen=True)

    opponent: Opponent
    metric: str
    videos: int
    moved: int
    """Videos on which the two differ."""
    unchanged: bool = False
    """Whether the two answer alike, to the cosine: nothing tells them apart."""
    challenger: float
    other: float
    interval: tuple[float, float]
    """95 % interval of challenger minus other."""

    @property
    def difference(self) -> float:
        """Challenger minus other."""
        return self.challenger - self.other

    @property
    def reservation(self) -> str:
        """Why the challenger cannot be called better; empty if it can."""
        told = round(self.difference, DECIMALS)
        if told > 0:
            return ""
        if not self.moved:
            return f"no different from {OPPONENTS[self.opponent]}"
        return f"{'lower than' if told < 0 else 'no better than'} {OPPONENTS[self.opponent]}"

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.metric} {self.challenger:.3f} against the {self.opponent}'s {self.other:.3f} "
            f"on {self.videos} videos ({self.difference:+.3f}, 95 % {low:+.3f} to {high:+.3f})"
        )


class Verdict(BaseModel):
    """What became of the challenger."""

    model_config = ConfigDict(frozen=True)

    version: int
    is_new: bool
    """False if the version was decided on in an earlier run."""
    promoted: bool
    """Whether it is in use now, be it because it is better or because it is no worse."""
    why: str
    champion: int | None
    """The version in use now."""
    differences: list[PairedDifference] = []


def paired_difference(
    opponent: Opponent,
    challenger: Sequence[Prediction],
    other: Sequence[Prediction],
    metric: str,
    group_of: Mapping[str, int] | None = None,
) -> PairedDifference:
    """Compare two models video by video.

    Args:
        challenger, other: answers to the same videos, in any order.
        group_of: video → number, equal for videos that belong together; None: none do.
    """
    of_video = {answer.video_id: answer for answer in other}
    pairs = [(answer, of_video[answer.video_id]) for answer in challenger]
    ours = _values([answer.rank for answer, _ in pairs], metric)
    theirs = _values([answer.rank for _, answer in pairs], metric)
    difference = ours - theirs
    groups = np.array([group_of[a.video_id] for a in challenger]) if group_of else None
    step, effect = described(metric).metric.step, design_effect(difference, groups)
    return PairedDifference(
        opponent=opponent,
        metric=metric,
        videos=len(difference),
        moved=int((difference != 0).sum()),
        unchanged=all(_are_alike(*pair) for pair in pairs),
        challenger=float(ours.mean()),
        other=float(theirs.mean()),
        interval=paired_interval(difference, step, effect),
    )


def _are_alike(answer: Prediction, other: Prediction) -> bool:
    return answer.rank == other.rank and abs(answer.similarity - other.similarity) < SAME


def _values(ranks: Sequence[int], metric: str) -> NDArray[np.float64]:
    gains: NDArray[np.float64] = described(metric).metric.gain(np.array(ranks, float))
    return gains


def stands(difference: PairedDifference, rule: Rule, margin: float) -> bool:
    """Whether the challenger passes the rule.

    `higher`: the metric is not below; `better`: the whole interval is above zero; `not_worse`: the
    whole interval is above minus the margin, which is a test of non-inferiority (Piaggio et al.
    2012, doi:10.1001/jama.2012.87802).
    """
    match rule:
        case "higher":
            return difference.difference > -ROUNDING
        case "better":
            return difference.interval[0] > 0
    return difference.interval[0] > -margin


def judge(
    differences: Sequence[PairedDifference],
    rule: Rule,
    margin: float = 0.0,
    unmeasured: str = "",
) -> tuple[bool, str]:
    """Whether the challenger becomes the champion, and why or why not.

    It is called promoted only if it measures better than each that it is compared with. One that
    answers just as another is no challenger.

    Args:
        margin: by so much the metric may be lower by the rule `not_worse`.
        unmeasured: why there is no comparison with the present champion.
    """
    lacking = f"; {unmeasured}" if unmeasured else ""
    for difference in differences:
        if difference.unchanged:
            other = OPPONENTS[difference.opponent]
            return False, f"kept as it was: its answers are those of {other}{lacking}"
    for difference in differences:
        if not stands(difference, rule, margin):
            return False, f"kept, not promoted: {difference} fails the rule `{rule}`{lacking}"
    reservations = [told for difference in differences if (told := difference.reservation)]
    became = "promoted" if not reservations else "in use"
    though = f", though {' and '.join(reservations)}" if reservations else ""
    told = "; ".join(map(str, differences)) or "nothing to compare with"
    return True, f"{became} by the rule `{rule}`{though}: {told}{lacking}"


def in_one_line(error: Exception) -> str:
    """An error of any library, short enough to stand in a sentence."""
    said = str(error).strip().splitlines()
    return shorten(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__, 200)


ENOUGH = 20
"""Videos that a champion has not learned from; fewer hardly tell two models apart."""


def compare(
    challenger: Sequence[Prediction],
    untouched: Sequence[Prediction],
    champion: Sequence[Prediction] | None,
    learned_from: set[str],
    metric: str,
    group_of: Mapping[str, int] | None = None,
    out_of_fold: Sequence[Prediction] = (),
) -> tuple[list[PairedDifference], str]:
    """The challenger against the champion, if there is one, and against the untouched model.

    Args:
        challenger, untouched, champion: answers on videos that the challenger has not learned from.
        learned_from: videos of the champion's training, and those that are the same over again;
            they do not count against it.
        group_of: video → number, equal for videos that belong together.
        out_of_fold: what models of the champion's recipe that had not learned from a video answered
            to it. They count if it has learned from all, and only where both were judged on the
            same videos: among more titles the same model ranks its own lower.

    Returns:
        The differences, and why the champion is not among them though there is one.
    """
    differences = [paired_difference("untouched", challenger, untouched, metric, group_of)]
    if champion is None:
        return differences, ""
    fair = [answer for answer in challenger if answer.video_id not in learned_from]
    if len(fair) < ENOUGH and _of_the_same_videos(challenger, out_of_fold):
        met = paired_difference("champion", challenger, out_of_fold, metric, group_of)
        return [met, *differences], ""
    if len(fair) < ENOUGH:
        learned = f"all but {len(fair)} of the" if fair else "all"
        return differences, (
            f"not compared with the champion, which has learned from {learned} "
            f"{len(challenger)} videos ({ENOUGH} others are needed)"
        )
    return [paired_difference("champion", fair, champion, metric, group_of), *differences], ""


def _of_the_same_videos(answers: Sequence[Prediction], others: Sequence[Prediction]) -> bool:
    splits = {answer.split for answer in (*answers, *others)}
    same = {answer.video_id for answer in answers} == {answer.video_id for answer in others}
    return splits == {OUT_OF_FOLD} and same


def _recorded(workspace: Workspace, champion: Version | None) -> list[Prediction]:
    """A champion's answers out of its folds; none if it has none, or they are gone."""
    if champion is None or champion.answers is None or not champion.answers.is_whole(workspace):
        return []
    answers = workspace.read_table(champion.answers, Prediction)
    return [answer for answer in answers if answer.split == OUT_OF_FOLD]


def _answers(workspace: Workspace, evaluation: Evaluation) -> list[Prediction]:
    """Those that count."""
    answers = workspace.read_table(evaluation.predictions, Prediction)
    return [answer for answer in answers if answer.split == evaluation.judged_on]


def decide(
    workspace: Workspace,
    parameters: TrainParameters,
    version: Version,
    untouched: Evaluation,
    challenger: Evaluation,
    met: int | None,
    champion: Evaluation | None,
    unmeasured: str,
) -> Verdict | None:
    """Make a version the champion if the rule allows.

    A version is decided on once: after a rollback the same model does not come back by itself.

    Args:
        met: the version that was the champion when it was measured; None if there was none.
        champion: its measures on the same examples; None if there is none.
        unmeasured: why there is none, though there is a champion.

    Returns:
        None if another version is the champion by now, by hand: this one has to meet it first.
    """
    registry = Registry(workspace, parameters.source, parameters.channel)
    decisions = registry.decisions()
    present = registry.champion()
    current = present.number if present else None
    if before := registry.decision_on(version.number):
        why = f"was decided on before: {before.why}"
        logger.info("Version %d of %s %s", version.number, registry.name, why)
        return Verdict(
            version=version.number, is_new=False, promoted=False, why=why, champion=current
        )
    if current != met:
        return None
    differences: list[PairedDifference] = []
    if version.recipe == UNTOUCHED.told:
        promoted, why = False, NOTHING_BETTER
    else:
        rows = workspace.read_table(version.examples, Example)
        groups = zip((row.id for row in rows), number_groups(rows).tolist(), strict=True)
        differences, apart = compare(
            _answers(workspace, challenger),
            _answers(workspace, untouched),
            _answers(workspace, champion) if champion else None,
            known_to(workspace, present, set(present.learned_from), rows) if present else set(),
            parameters.promotion.metric,
            dict(groups),
            _recorded(workspace, present),
        )
        asked = parameters.promotion
        promoted, why = judge(differences, asked.rule, asked.margin, unmeasured or apart)
    last = decisions[-1].number if decisions else 0
    chosen = version.number if promoted else current
    decision = registry.decide_after(last, version.number, chosen, why)
    if decision is None:
        return None
    removed = registry.remove_old_models(parameters.promotion.keep_models)
    logger.info("Version %d of %s %s", version.number, registry.name, why)
    if removed:
        logger.info("Deleted the weights of old versions: %s", ", ".join(map(str, removed)))
    return Verdict(
        version=version.number,
        is_new=True,
        promoted=promoted,
        why=why,
        champion=decision.champion,
        differences=differences,
    )
