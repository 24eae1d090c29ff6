"""The story of a training, from a channel to a fine-tuned, measured and reported CLIP.

It reads from top to bottom; `thumbtune.flows.train_flow` is the door. What is imported here takes
seconds, so the flow does that once its run has begun.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from prefect import get_run_logger
from pydantic import BaseModel, Field

from thumbtune.channel.listing import Video
from thumbtune.channel.registry import Decision, Registry, Version
from thumbtune.channel.source import short_name
from thumbtune.channel.videos import VideoList, end_listing, listed_as
from thumbtune.clip.features import add_up, partitions_of
from thumbtune.clip.models import folder_of, remember_folder
from thumbtune.clip.precision import ChosenPrecision
from thumbtune.clip.towers import Precision
from thumbtune.data.assignments import assigned_before, keep_assigned
from thumbtune.data.thumbnails import (
    DamagedThumbnailError,
    Example,
    ThumbnailBatch,
    remove_damaged,
)
from thumbtune.flows.finished import Finished
from thumbtune.flows.runners import with_a_gpu_each
from thumbtune.learning.candidates import Candidate
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import OUT_OF_FOLD, Evaluation
from thumbtune.learning.last_sweep import Swept, as_candidates, last_sweep
from thumbtune.learning.promotion import Verdict, in_one_line
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import (
    AUTO,
    NegativesParameters,
    ThumbnailsParameters,
    TrainParameters,
    in_folds,
)
from thumbtune.reporting.report import FunnelStage, left_out
from thumbtune.reporting.tracking import check_trackers
from thumbtune.store.disk import disk_error
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.artifacts import (
    outcome,
    post_artifacts,
    post_field_score,
    post_summary,
    post_verdict,
)
from thumbtune.tasks.caching import Stages
from thumbtune.tasks.check_language import check_language
from thumbtune.tasks.choose_precision import choose_precision
from thumbtune.tasks.collect_examples import collect_examples
from thumbtune.tasks.count_trainable import count_trainable
from thumbtune.tasks.encode_features import encode_features
from thumbtune.tasks.evaluate import evaluate
from thumbtune.tasks.fetch_thumbnails import fetch_thumbnails
from thumbtune.tasks.fetch_videos import fetch_videos
from thumbtune.tasks.find_near_duplicates import find_near_duplicates
from thumbtune.tasks.index_thumbnails import index_thumbnails
from thumbtune.tasks.look_ahead import look_ahead
from thumbtune.tasks.mine_by_clip import mine_by_clip
from thumbtune.tasks.mine_negatives import mine_negatives
from thumbtune.tasks.notifications import notify_verdict
from thumbtune.tasks.plan_run import plan_run
from thumbtune.tasks.promote import promote
from thumbtune.tasks.publish import publish
from thumbtune.tasks.register import register
from thumbtune.tasks.resolve_model import resolve_model
from thumbtune.tasks.runs import name_outcome
from thumbtune.tasks.score_in_field import score_in_field
from thumbtune.tasks.split_videos import split_videos
from thumbtune.tasks.track_version import track_version
from thumbtune.tasks.train_model import train_model
from thumbtune.tasks.write_cards import write_cards
from thumbtune.tasks.write_report import write_report

Run = TypeVar("Run", bound=BaseModel)


class TrainRun(BaseModel):
    """What a run of the train flow gives."""

    model: str
    """Folder that `SentenceTransformer` loads."""
    report: str
    """Page to open in a browser."""
    recipe: str
    """What was done to the untouched model."""
    judged_on: str
    """`test`, or `out_of_fold`: all videos, each by a model that has not learned from it."""
    untouched_metrics: dict[str, float]
    """All metrics of the untouched model there."""
    article_metrics: dict[str, float] | None
    """Those of the article's recipe; None of a model that would be trained whole for it."""
    fine_tuned_metrics: dict[str, float]
    verdict: Verdict
    """Whether it became the channel's champion."""
    left_out: str
    """How many videos and thumbnails are not in it, and why."""
    stages: str
    """Which stages were executed and which came from the cache."""
    rests_on: Finished = Field(exclude=True, repr=False)
    """By which a later run knows that it has nothing to do."""

    @property
    def untouched_recall_at_1(self) -> float:
        """From thumbnail to title."""
        return self.untouched_metrics["Recall@1"]

    @property
    def fine_tuned_recall_at_1(self) -> float:
        """The same of the fine-tuned model."""
        return self.fine_tuned_metrics["Recall@1"]


class ChampionMeasured(NamedTuple):
    """The champion that a new model has to meet."""

    number: int | None = None
    """None if there is none, or nothing is left to decide."""
    evaluation: Evaluation | None = None
    unmeasured: str = ""
    """Why it could not be measured."""


NOTHING = "nothing: known from an earlier run"


TRIES = 3


def begun_again_on_damage(story: Callable[..., Run], workspace: Workspace, *args: Any) -> Run:
    """Go through the steps of a run, and again if a stored thumbnail is found to be damaged.

    All that was done is found then, and what was damaged is fetched.
    """
    for _ in range(TRIES - 1):
        try:
            return story(workspace, *args)
        except DamagedThumbnailError as damaged:
            removed = 1 + remove_damaged(workspace)
            get_run_logger().warning("%s Fetching %d such thumbnails now", damaged, removed)
    return story(workspace, *args)


def train_and_promote(
    workspace: Workspace, parameters: TrainParameters, registry: Registry
) -> TrainRun:
    """The story from top to bottom."""
    check_trackers(parameters.training.report_to)
    stages = Stages(workspace, parameters.refresh)
    decided = len(registry.decisions())
    swept = last_sweep(registry) if parameters.training.recipe == "auto" else None
    mined = [parameters.negatives, *([swept.recipe.negatives] if swept else [])]
    compares = any(negatives.compares_titles for negatives in mined)
    model, text_model = find_models(parameters, stages, compares)
    remember_folder(model, workspace)
    funnel, videos, batches, examples, work = collect(
        workspace, parameters, stages, model, text_model
    )

    advice = stages.run(check_language, workspace, model, examples).told
    if advice:
        get_run_logger().warning(advice)
    encoding, work["features"] = encode(workspace, model, examples, parameters, stages)
    precision = encoding.precision
    examples = paired_by_clip(workspace, model, examples, parameters, precision, stages)

    if champion := registry.champion():
        own = precision_of(champion, model, parameters, precision)
        look_back(workspace, parameters, champion, examples, own)
    data = (workspace, model, text_model, examples)
    others = tried_too(workspace, parameters, swept, model, examples)
    plan = stages.run(plan_run, *data, parameters.for_learning(), precision, others)
    get_run_logger().info("Recipe: %s, %s", plan.candidate.told, plan.why)
    what = (plan.candidate, list(plan.learns), parameters.training)
    how = (parameters.evaluation, parameters.seed, precision)
    trained = stages.run(train_model, workspace, model, examples, *what, *how).tuned_from(model)
    models = compare_models(
        workspace, model, trained, examples, parameters, plan, precision, stages
    )
    untouched, article, fine_tuned = models

    told = parameters.model_copy(update={"refresh": False})  # changes nothing that is written
    figures = (plan, trained, *models)
    notes = [note for note in (advice, encoding.told) if note]
    stages.run(write_cards, workspace, told, funnel, examples, *figures)

    seen = [video.id for video in workspace.read_table(videos, Video)]
    version = register(workspace, told, seen, examples, plan, untouched, fine_tuned)
    verdict = None
    while verdict is None:  # somebody may choose another champion by hand while one is measured
        decided += tell_of_others(registry.decisions()[decided:], registry)
        champion, met = registry.champion(), ChampionMeasured()
        if champion and not registry.decision_on(version.number):
            own = precision_of(champion, model, parameters, precision)
            crossed = plan.method == "cross_fit"
            met = measure(workspace, champion, examples, parameters, own, crossed, stages)
        verdict = promote(workspace, told, version, untouched, fine_tuned, *met)
    registry.note_seen(seen)
    became = registry.decision_on(version.number)
    report = stages.run(write_report, workspace, told, funnel, examples, *figures, notes, became)
    post_artifacts(workspace, parameters, funnel, *figures, report, work)
    post_verdict(workspace, parameters, verdict)
    post_summary(workspace, parameters, trained, *models, report, verdict)
    name_outcome(outcome(untouched, fine_tuned, verdict))
    notify_verdict(parameters.channel or parameters.source, verdict)
    if chosen := registry.champion():
        index(workspace, chosen, examples, needed=chosen.number == version.number)
    for tracker in parameters.training.report_to:
        told_as = f"{short_name(parameters.source, parameters.channel)} version {version.number}"
        stages.run(
            track_version, workspace, tracker, told_as, version, trained.history, untouched.judged
        )
    if parameters.publish.model_repo or parameters.publish.dataset_repo:
        publish(workspace, parameters.publish, trained, examples)

    get_run_logger().info("%s %s", left_out(funnel), stages.summary())
    written = {f"{report.folder}/{name}": content for name, content in report.files.items()}
    rests_on = (videos, batches, examples, trained.model, written)
    return TrainRun(
        model=str(folder_of(trained.model, workspace)),
        report=str(workspace.place(f"{report.folder}/report.html")),
        recipe=f"{plan.candidate.told}: {plan.why}",
        judged_on=fine_tuned.judged_on,
        untouched_metrics=untouched.judged.metrics,
        article_metrics=article.judged.metrics if article else None,
        fine_tuned_metrics=fine_tuned.judged.metrics,
        verdict=verdict,
        left_out=left_out(funnel),
        stages=stages.summary(),
        rests_on=Finished.of(registry, parameters, *rests_on),
    )


def tried_too(
    workspace: Workspace,
    parameters: TrainParameters,
    swept: Swept | None,
    model: ModelReference,
    examples: Table,
) -> list[Candidate]:
    """The last sweep's choice, if a test split measures at which it has not looked."""
    if in_folds(parameters, examples.rows):
        return []
    return as_candidates(swept, model, workspace.read_table(examples, Example))


def compare_models(
    workspace: Workspace,
    model: ModelReference,
    trained: TrainedModel,
    examples: Table,
    parameters: TrainParameters,
    plan: Plan,
    precision: Precision,
    stages: Stages,
) -> tuple[Evaluation, Evaluation | None, Evaluation]:
    """The measures of the untouched model, the article's recipe and the one that was trained.

    The article's is None where it would cost a training of the whole model.
    """
    article = plan.figures.get("article")
    if plan.method == "cross_fit":
        untouched, chosen = plan.figures["untouched"], plan.figures["chosen"]
        return untouched.of(model), article, chosen.of(trained.model)
    how = (parameters.training.trainable, parameters.evaluation, precision)
    untouched, fine_tuned = (
        stages.run(evaluate, workspace, each, examples, *how, called=f"evaluate {called}").of(each)
        for each, called in ((model, "untouched"), (trained.model, "fine-tuned"))
    )
    return untouched, article, fine_tuned


def tell_of_others(decisions: Sequence[Decision], registry: Registry) -> int:
    """Log what was decided while this run went on, mostly by hand; how many decisions it was."""
    for made in decisions:
        get_run_logger().info(
            "While this run went on, it was decided on version %d of %s: %s; champion: %s",
            *(made.version, registry.name, made.why, made.champion or "none"),
        )
    return len(decisions)


def find_models(
    parameters: TrainParameters, stages: Stages, compares_titles: bool
) -> tuple[ModelReference, ModelReference | None]:
    """The CLIP, and the model that compares titles, if the method of any negatives needs one.

    A wrong model or fragment shows here, before anything is fetched.
    """
    model = resolve_model(parameters.model, "model")
    stages.run(count_trainable, model, parameters.training.trainable)
    if not compares_titles:
        return model, None
    return model, resolve_model(parameters.negatives.text_model, "negatives.text_model")


def collect(
    workspace: Workspace,
    parameters: TrainParameters,
    stages: Stages,
    model: ModelReference,
    text_model: ModelReference | None,
) -> tuple[list[FunnelStage], VideoList, list[ThumbnailBatch], Table, dict[str, str]]:
    """From the channel to a table of `Example`: videos, splits, negatives and thumbnails.

    Returns:
        The funnel, the videos, their thumbnails, the examples, and stage → what this run had to do
        for it.
    """
    hours = parameters.videos.expiration_hours
    source, channel = parameters.source, parameters.channel
    asked = (source, listed_as(workspace, source, channel), parameters.videos)
    if parameters.refresh:  # nothing that an unfinished list has left is used
        end_listing(workspace, *asked)
    videos = stages.run(
        fetch_videos, workspace, *asked, will_do=lambda known: known.is_younger_than(hours)
    )
    end_listing(workspace, *asked)
    listed = (videos.work or "listed now") if stages.was_made(videos) else "listed before"
    look_ahead(workspace, videos, listed, model, parameters.refresh)
    calls = thumbnail_calls(workspace, videos, parameters)
    names = numbered("fetch-thumbnails", [call[1] for call in calls])
    batches = stages.map(fetch_thumbnails, calls, names)
    fetched = ThumbnailBatch.joined(batches)
    looks = stages.run(
        find_near_duplicates, workspace, Registry(workspace, source, channel).name, fetched
    )
    splits = split_as_before(workspace, videos, looks, parameters, stages)
    mining = before_features(negatives_within(parameters, videos.rows)), text_model
    shuffled = parameters.split.method == "shuffle"
    pairs = stages.run(mine_negatives, workspace, splits, *mining, parameters.seed, shuffled)
    min_rows = 0 if in_folds(parameters, videos.rows) else parameters.split.min_rows
    accepted = (parameters.thumbnails.max_bad_share, min_rows)
    examples = stages.run(collect_examples, workspace, pairs, fetched, *accepted)
    linking = [FunnelStage.of("videos to split", splits)] if splits.dropped else []
    thumbnails = FunnelStage.of("thumbnails", examples)
    funnel = [FunnelStage.of("videos", videos), *linking, thumbnails]
    downloaded = sum(batch.downloaded for batch in batches if stages.was_made(batch))
    work = {
        "videos": (videos.work or "listed") if stages.was_made(videos) else NOTHING,
        "thumbnails": f"{downloaded} of {pairs.rows} downloaded",
    }
    return funnel, videos, batches, examples, work


def numbered(step: str, parts: Sequence[Sequence[Any]]) -> list[str]:
    """What the runs of a mapped step are called, by the places of their rows."""
    ends = list(accumulate(map(len, parts)))
    starts = [0, *ends]
    return [f"{step} {start + 1}-{end}" for start, end in zip(starts, ends, strict=False)]


def negatives_within(parameters: TrainParameters, videos: int) -> NegativesParameters:
    """How negatives are mined: among all videos if all are learned from; folds mine theirs anew."""
    among_all = {"scope": "before_split"} if in_folds(parameters, videos) else {}
    return parameters.negatives.model_copy(update=among_all)


def before_features(negatives: NegativesParameters) -> NegativesParameters:
    """The same but for CLIP's own, for which its features must be there."""
    later = {"method": "none"} if negatives.method == "clip" else {}
    return negatives.model_copy(update=later)


def paired_by_clip(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    parameters: TrainParameters,
    precision: Precision,
    stages: Stages,
) -> Table:
    """The examples, with CLIP's own negatives if those are asked for."""
    if parameters.negatives.method != "clip":
        return examples
    how = (parameters.training.trainable, negatives_within(parameters, examples.rows), precision)
    return stages.run(mine_by_clip, workspace, model, examples, *how)


def split_as_before(
    workspace: Workspace, videos: Table, looks: Table, parameters: TrainParameters, stages: Stages
) -> Table:
    """Each video keeps the split that an earlier run of the channel gave it."""
    registry = Registry(workspace, parameters.source, parameters.channel)
    crossed = in_folds(parameters, videos.rows)
    asked = parameters.split.model_copy(update={"min_rows": 0} if crossed else {})
    how = (asked, parameters.seed)
    while True:  # a sweep may split a list of the channel at the same time
        before = assigned_before(registry, parameters.split, videos)
        splits = stages.run(split_videos, workspace, videos, *how, before.table, looks, not crossed)
        if keep_assigned(registry, parameters.split, videos, splits, before.last, looks):
            return splits


def thumbnail_calls(
    workspace: Workspace, videos: Table, parameters: TrainParameters
) -> list[tuple[Workspace, list[Video], ThumbnailsParameters, bool]]:
    """The arguments of one fetch for each batch of videos."""
    rows = workspace.read_table(videos, Video)
    size = parameters.thumbnails.batch_size
    return [
        (workspace, rows[start : start + size], parameters.thumbnails, parameters.refresh)
        for start in range(0, len(rows), size)
    ]


def encode(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    parameters: TrainParameters,
    stages: Stages,
) -> tuple[ChosenPrecision, str]:
    """Run the frozen towers on one partition of the examples after the other, or side by side.

    Returns:
        The precision of the features, and what this run had to do for them.
    """
    data = (workspace, model, examples, parameters.training.trainable)
    wanted, size = parameters.features.precision, parameters.features.partition_size
    chosen = stages.run(choose_precision, *data, wanted)
    ranges = partitions_of(examples, size)
    calls = [(*data, chosen.precision, *rows) for rows in ranges]
    names = [f"encode-features {start + 1}-{stop}" for start, stop in ranges]
    with with_a_gpu_each():
        parts = stages.map(encode_features, calls, names)
    made = [part for part in parts if stages.was_made(part)]
    return chosen, add_up(made).work if made else NOTHING


def is_of_kind(champion: Version, model: ModelReference, parameters: TrainParameters) -> bool:
    """Whether a champion shares the frozen layers of this run, and so its features."""
    trainable = champion.parameters.training.trainable, parameters.training.trainable
    same = len(set(trainable)) == 1 or OF_CLIP.issuperset(trainable)
    return champion.untouched.fingerprint == model.fingerprint and same


OF_CLIP = {AUTO, ("projection",)}
"""What is trained of a CLIP by default, and how older versions name it."""


def precision_of(
    champion: Version, model: ModelReference, parameters: TrainParameters, precision: Precision
) -> Precision:
    """What a champion's features are read in: this run's, where they are the same."""
    return precision if is_of_kind(champion, model, parameters) else "float32"


def measure(
    workspace: Workspace,
    champion: Version,
    examples: Table,
    parameters: TrainParameters,
    precision: Precision,
    in_folds: bool,
    stages: Stages,
) -> ChampionMeasured:
    """Measure a champion by the layers of its own record, on the videos of this run.

    Whatever is wrong with it, the new model must not suffer.
    """
    fragments = champion.parameters.training.trainable
    folds = (in_folds, parameters.seed if in_folds else 0)
    how = (fragments, parameters.evaluation, precision, *folds)
    try:
        folder_of(champion.model, workspace)
        called = f"evaluate champion, version {champion.number}"
        known = stages.run(evaluate, workspace, champion.model, examples, *how, called=called)
        return ChampionMeasured(champion.number, known.of(champion.model))
    except Exception as error:
        if disk_error(error):
            raise
        unmeasured = (
            f"not compared with the champion, version {champion.number}, which cannot be "
            f"measured: {in_one_line(error)}"
        )
        get_run_logger().warning("The new model is %s", unmeasured)
        return ChampionMeasured(champion.number, None, unmeasured)


def look_back(
    workspace: Workspace,
    parameters: TrainParameters,
    champion: Version,
    examples: Table,
    precision: Precision,
) -> None:
    """Score the champion on the videos that came after it; the new model must not suffer if it
    cannot be scored."""
    try:
        score = score_in_field(workspace, parameters, champion, examples, precision)
    except Exception as error:
        if disk_error(error):
            raise
        get_run_logger().warning(
            "Version %d is not scored on new videos: %s", champion.number, in_one_line(error)
        )
        return
    if score:
        post_field_score(workspace, parameters, score)


def index(workspace: Workspace, champion: Version, examples: Table, needed: bool) -> None:
    """Bring the champion's index up to date.

    Args:
        needed: whether a failure fails the run; an old champion may be broken.
    """
    try:
        index_thumbnails(workspace, champion, examples)
    except Exception as error:
        if needed or disk_error(error):
            raise
        get_run_logger().warning(
            "The index of version %d is not updated: %s", champion.number, in_one_line(error)
        )


def summary(run: TrainRun) -> str:
    """What came of a run, in a few lines."""
    return "\n".join(
        [
            f"{figures_told(run)}\nRecipe: {run.recipe}",
            f"Model:  {run.model}\nReport: {run.report}",
            f"Version {run.verdict.version} {run.verdict.why}\n{run.left_out}",
        ]
    )


ON = {"test": "on test", OUT_OF_FOLD: "of all videos, each out of its fold"}


def figures_told(run: TrainRun) -> str:
    """Recall@1 of the untouched model, the article's recipe and the new model."""
    article = run.article_metrics
    between = f" → {article['Recall@1']:.3f} the article's recipe" if article else ""
    return (
        f"Recall@1 {ON[run.judged_on]}: {run.untouched_recall_at_1:.3f} untouched{between} "
        f"→ {run.fine_tuned_recall_at_1:.3f} fine-tuned"
    )
