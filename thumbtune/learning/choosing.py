"""How a run trains and measures: what its parameters ask, as far as the model allows."""

import time
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict
from threadpoolctl import threadpool_limits

from thumbtune.clip.features import reads_features
from thumbtune.clip.towers import Precision
from thumbtune.data.splits import SplitTooSmallError, check_sizes, fold_numbers, number_groups
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import Candidate, article_candidate, given_candidate
from thumbtune.learning.choice import CrossFit, Learner, Tried
from thumbtune.learning.evaluation import OUT_OF_FOLD, Evaluation, Measured, embed_videos, kept
from thumbtune.learning.recipes import RecipeTrainer
from thumbtune.parameters import FOLDS, SPLITS, TrainParameters, in_folds
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace

MANY = 2000
"""Videos from which on several threads gain more than they lose."""

Method = Literal["cross_fit", "holdout"]


class Plan(BaseModel):
    """What is done to the untouched model, and how it is measured."""

    model_config = ConfigDict(frozen=True)

    candidate: Candidate
    learns: tuple[str, ...]
    """The splits that the kept model learns from."""
    method: Method
    why: str
    """Of the recipe and of the method, for the log and the report."""
    tried: list[Tried] = []
    """Nothing if the recipe is given."""
    figures: dict[str, Evaluation] = {}
    """Of the article's recipe, `article`, and of a cross-fit `untouched` and `chosen` too. None of
    a model that would be trained whole for it."""
    article_told: str = ""
    """How the article's recipe, as it was measured, is not the article's; mostly nothing."""
    seconds: float = 0.0
    """That the choice has taken."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether the stored answers are still there."""
        return all(each.is_whole(workspace) for each in self.figures.values())


def plan_run(
    workspace: Workspace,
    model: ModelReference,
    text_model: ModelReference | None,
    examples: Table,
    parameters: TrainParameters,
    precision: Precision,
    others: Sequence[Candidate] = (),
) -> Plan:
    """Choose the recipe by folds if that is asked, and measure it by a cross-fit if that is.

    Of fewer than `MANY` videos by one thread: on two cores two take ten times the CPU for the small
    matrices of folds.

    Args:
        others: candidates beside the usual ones; a cross-fit leaves them out, since what found them
            may have looked at its videos.
    """
    rows = workspace.read_table(examples, Example)
    trainer = RecipeTrainer(workspace, model, text_model, rows, parameters, precision)
    asked, crossed = parameters.training.recipe == "auto", in_folds(parameters, len(rows))
    if not reads_features(trainer.head):
        check_sizes(rows, parameters.split.min_rows)
        why = "given, and measured on test: folds would train the whole model anew"
        return _given(trainer, why if asked or crossed else "given")
    started = time.process_time()
    with threadpool_limits(1 if len(rows) < MANY else None):
        if crossed:
            plan = _crossed(trainer, rows, asked)
        else:
            plan = _held_out(trainer, rows, others) if asked else _given(trainer, "given")
            plan = plan.model_copy(update={"figures": _article_on_test(trainer, rows)})
    told, seconds = _told_of_article(trainer), time.process_time() - started
    return plan.model_copy(update={"article_told": told, "seconds": seconds})


def _given(trainer: RecipeTrainer, why: str) -> Plan:
    """The parameters' recipe learns from train, and valid chooses its epoch."""
    candidate = given_candidate(trainer.base)
    return Plan(candidate=candidate, learns=("train",), method="holdout", why=why)


def _held_out(trainer: RecipeTrainer, rows: Sequence[Example], others: Sequence[Candidate]) -> Plan:
    """The best in folds of train and valid learns from both of them."""
    known = [row for row in rows if row.split != "test"]
    choice = _learner(trainer, known, others).choose()
    return Plan(
        candidate=choice.taken,
        learns=("train", "valid"),
        method="holdout",
        why=choice.why,
        tried=choice.tried,
    )


def _article_on_test(trainer: RecipeTrainer, rows: Sequence[Example]) -> dict[str, Evaluation]:
    """The article's recipe, which learns from train."""
    mined, negatives = rows, trainer.article.negatives
    if negatives != trainer.base.negatives:
        mined = trainer.with_negatives(rows, negatives)
    train = [row for row in mined if row.split == "train"]
    model = trainer.do(article_candidate(trainer.article), train)
    parts: dict[str, Measured] = {}
    for split in SPLITS:
        part = [row for row in rows if row.split == split]
        parts[split] = embed_videos(model, trainer.workspace, part), part, None
    how = trainer.parameters.evaluation
    return {"article": kept(trainer.workspace, _called(trainer, "article"), parts, how)}


def _told_of_article(trainer: RecipeTrainer) -> str:
    method = trainer.article.negatives.method
    if method in ("least_similar", "given"):
        return ""
    return (
        "The article's negatives are the least similar titles. This run compares no titles, so "
        f"the article's recipe was measured with negatives.method {method}."
    )


def _called(trainer: RecipeTrainer, name: str) -> ModelReference:
    return trainer.model.called(f"{trainer.model.name}, {name}")


def _crossed(trainer: RecipeTrainer, rows: Sequence[Example], asked: bool) -> Plan:
    learner = _learner(trainer, rows)
    if asked:
        choice = learner.choose()
        candidate, tried, why = choice.taken, choice.tried, choice.why
        crossed = learner.cross_fit()
        if candidate.changes_nothing:  # the choice of other folds may be another, but is not kept
            crossed = crossed._replace(chosen=crossed.untouched)
    else:
        candidate, tried, why = given_candidate(trainer.base), [], "given"
        crossed = learner.cross_fit(candidate)
    return Plan(
        candidate=candidate,
        learns=SPLITS,
        method="cross_fit",
        why=why,
        tried=tried,
        figures=_measured(trainer, rows, crossed),
    )


def _learner(
    trainer: RecipeTrainer, rows: Sequence[Example], others: Sequence[Candidate] = ()
) -> Learner:
    check_folds(rows, trainer.parameters.split.min_rows)
    folds = fold_numbers(rows, trainer.parameters.seed)
    return Learner(trainer, rows, folds, others)


def _measured(
    trainer: RecipeTrainer, rows: Sequence[Example], crossed: CrossFit
) -> dict[str, Evaluation]:
    evaluations = {}
    for name in ("untouched", "article", "chosen"):
        part = {OUT_OF_FOLD: (getattr(crossed, name), rows, crossed.galleries)}
        how = trainer.parameters.evaluation
        evaluations[name] = kept(trainer.workspace, _called(trainer, name), part, how)
    return evaluations


def check_folds(rows: Sequence[Example], min_rows: int) -> None:
    """Stop if the folds would be too small to learn from or to measure on.

    Raises:
        SplitTooSmallError: so they are.
    """
    groups = int(number_groups(rows).max()) + 1 if rows else 0
    if groups < FOLDS * min_rows:
        raise SplitTooSmallError(
            f"{len(rows)} videos, in {groups} groups that share a title or nearly a picture, are "
            f"too few for {FOLDS} folds of split.min_rows={min_rows}. Add videos (a lower "
            "videos.min_duration_seconds keeps more), lower split.min_rows, or set training.recipe "
            "to given and evaluation.method to holdout; where all thumbnails are alike, with "
            "split.method shuffle."
        )
