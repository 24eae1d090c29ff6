"""What a run shows in the Prefect UI: tables, the training curves and the worst misses.

Posted by every run, also by one that took all its results from the cache. Pictures are `data:`
addresses inside markdown, which the UI shows as they are (tried with 3.8.8, up to 2.4 MB). An image
artifact shows one too, but prints its whole address below.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from thumbtune.channel.field_scores import FieldScore
from thumbtune.channel.registry import Registry
from thumbtune.channel.source import short_name
from thumbtune.clip.freezing import TrainableParameters
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.promotion import Verdict
from thumbtune.learning.recipes import RecipeComparison, Sweep, Trial
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.figures import first_cards, misses_heading
from thumbtune.reporting.report import (
    Comparison,
    FunnelStage,
    Report,
    compare,
    data_uri,
    parameter_table,
)
from thumbtune.store.workspace import Workspace
from thumbtune.text.escaping import as_code, for_markdown, in_cells, without_code

NAMES_SHOWN = 8


def post_artifacts(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: Sequence[FunnelStage],
    plan: Plan,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
    report: Report,
    work: Mapping[str, str],
) -> None:
    """Post the artifacts of a run, from inside its flow; their keys keep a channel's history.

    Args:
        work: stage → what this run had to do for it.
        report: its files must still be in the workspace.
    """
    name = named_for(workspace, parameters)
    figures = headline(untouched, fine_tuned)
    kept, found = funnel[-1].kept, funnel[0].found
    tables = {
        "metrics": (metrics_table(untouched, article, fine_tuned), figures),
        "recipe": (recipe_table(plan), f"{plan.candidate.told}: {plan.why}."),
        "parameters": (in_cells(parameter_table(parameters)), "All that this run was asked."),
        "data-funnel": (
            in_cells(funnel_table(funnel, work)),
            f"{found} videos found, {kept} of use: what was left out, and what this run had to do.",
        ),
        "trainable-parameters": (
            in_cells([trainable_row(trained.trainable)]),
            f"{trained.trainable.share:.2%} of the model is trained; the rest is frozen.",
        ),
    }
    for kind, (rows, description) in tables.items():
        create_table_artifact(rows, key=name(kind), description=description)
    pictures = ["misses.json", "misses.jpg", *([CURVE] if trained.history else [])]
    misses, *_ = workspace.places(f"{report.folder}/{file}" for file in pictures)
    if trained.history:
        curve = _picture("Loss and validation MRR over the epochs", misses.parent / CURVE)
        create_markdown_artifact(curve, key=name("loss-curve"), description=figures)
    worst = misses_markdown(misses.parent)
    create_markdown_artifact(worst, key=name("worst-misses"), description=figures)


CURVE = "loss_curve.png"
SHOWN = 4
"""Metrics, and misses, of the summary."""


def named_for(workspace: Workspace, parameters: TrainParameters) -> Callable[[str], str]:
    """Kind of artifact → its key, which is the channel's own: small letters, digits, dashes."""
    channel = Registry(workspace, parameters.source, parameters.channel).name
    own = re.sub("[^a-z0-9]+", "-", channel.lower()).strip("-")
    return lambda kind: f"{kind}-{own}"


def headline(untouched: Evaluation, fine_tuned: Evaluation) -> str:
    """The figure by which runs are told apart in a history."""
    before, after = untouched.judged.metrics["Recall@1"], fine_tuned.judged.metrics["Recall@1"]
    return f"R@1 {before:.2f} → {after:.2f}"


def _why(verdict: Verdict) -> str:
    """In Markdown; the backticks of a rule's name would show, as descriptions are plain text."""
    return for_markdown(without_code(verdict.why))


def became_of(verdict: Verdict) -> str:
    """What became of a version, in a word or two."""
    if verdict.promoted:
        return "promoted"
    return "in use" if verdict.champion == verdict.version else "not promoted"


def outcome(untouched: Evaluation, fine_tuned: Evaluation, verdict: Verdict) -> str:
    """By which a run is told from others of its channel, such as `R@1 0.26 → 0.80 · promoted`."""
    return f"{headline(untouched, fine_tuned)} · {became_of(verdict)}"


def post_summary(
    workspace: Workspace,
    parameters: TrainParameters,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
    report: Report,
    verdict: Verdict,
) -> None:
    """Post what a reader wants first, on one page: the verdict, the figures, curve and misses.

    After `post_artifacts`, which brings the report's files to this machine.
    """
    name, became = named_for(workspace, parameters), became_of(verdict)
    compared = compare(untouched, article, fine_tuned)[:SHOWN]
    folder = workspace.place(f"{report.folder}/misses.json").parent
    channel = short_name(parameters.source, parameters.channel)
    lines = [
        f"# {for_markdown(channel)}: version {verdict.version} {became}",
        f"Version {verdict.version} {_why(verdict)}. In use: version {verdict.champion or 'none'}.",
        "\n".join([*SUMMARY_HEAD, *map(_summary_row, compared)]),
        f"Of {compared[0].rows} videos ({compared[0].split.replace('_', ' ')}), 95 % intervals.",
    ]
    if trained.history:
        lines.append(_picture("Training", folder / CURVE))
    if misses := json.loads((folder / "misses.json").read_bytes()):
        few = first_cards((folder / "misses.jpg").read_bytes(), min(SHOWN, len(misses)))
        lines += ["# Worst misses", f"![Worst misses]({data_uri(few)})"]
    lines.append(_where_the_report_is(workspace, report))
    create_markdown_artifact(
        "\n\n".join(lines),
        key=name("summary"),
        description=outcome(untouched, fine_tuned, verdict),
    )


SUMMARY_HEAD = ["| | untouched | article's recipe | this model |", "| --- | --- | --- | --- |"]


def _summary_row(row: Comparison) -> str:
    cells = [
        _with_interval(row.untouched, row.untouched_interval),
        _with_interval(row.article, row.article_interval),
        _with_interval(row.fine_tuned, row.fine_tuned_interval),
    ]
    return f"| {row.metric} | {' | '.join(cells)} |"


def _where_the_report_is(workspace: Workspace, report: Report) -> str:
    """A link, where THUMBTUNE_WEB_URL tells how browsers reach `thumbtune web`."""
    page = f"{workspace}/{report.folder}/report.html"
    if url := os.environ.get("THUMBTUNE_WEB_URL", "").rstrip("/"):
        return f"The whole report: [on the page]({url}), tab Report; {as_code(page)}"
    return f"The whole report: `thumbtune web`, or {as_code(page)}"


def post_verdict(workspace: Workspace, parameters: TrainParameters, verdict: Verdict) -> None:
    """Post what became of the trained model."""
    rows = [
        {
            "against": difference.opponent,
            "metric": difference.metric,
            "videos": difference.videos,
            "challenger": f"{difference.challenger:.3f}",
            "other": f"{difference.other:.3f}",
            "difference": f"{difference.difference:+.3f}",
            "95 %": f"{difference.interval[0]:+.3f} to {difference.interval[1]:+.3f}",
        }
        for difference in verdict.differences
    ]
    create_table_artifact(
        rows,
        key=named_for(workspace, parameters)("promotion"),
        description=f"Version {verdict.version} {_why(verdict)}. Champion: version "
        f"{verdict.champion or 'none'}.",
    )


def post_field_score(workspace: Workspace, parameters: TrainParameters, score: FieldScore) -> None:
    """Post how the champion did on videos that came after it."""
    rows = [
        {
            "metric": name,
            "later videos": len(score.videos),
            "among titles": score.gallery,
            "in the field": f"{value:.3f}",
            "95 %": _interval(score.intervals[name]),
            "when trained": f"{score.promised[name]:.3f}" if name in score.promised else "",
        }
        for name, value in score.metrics.items()
    ]
    key = named_for(workspace, parameters)("field")
    create_table_artifact(rows, key=key, description=f"Version {score.version}: {score}.")


def post_sweep_artifacts(
    workspace: Workspace,
    parameters: TrainParameters,
    sweep: Sweep,
    comparison: RecipeComparison,
    report: Report,
) -> None:
    """Post the artifacts of a sweep, from inside its flow."""
    name = named_for(workspace, parameters)
    create_table_artifact(
        comparison_table(comparison),
        key=name("sweep-comparison"),
        description=f"Test split, {comparison.videos} videos, which no trial has seen. The best "
        f"parameters: {as_code(f'{workspace}/{report.folder}/best_parameters.json')}",
    )
    create_table_artifact(
        trial_table(workspace.read_table(sweep.trials, Trial)),
        key=name("sweep-trials"),
        description=f"By validation MRR, mean over {sweep.folds} fold(s); the best comes first.",
    )
    create_markdown_artifact(
        _picture("Validation MRR of each trial", workspace.place(f"{report.folder}/trials.png")),
        key=name("sweep-plot"),
    )


def comparison_table(comparison: RecipeComparison) -> list[dict[str, str]]:
    """One row per recipe: mean and deviation over the seeds, and each seed's Recall@1."""
    return [
        {
            "recipe": result.name,
            "Recall@1": result.told,
            "MRR": f"{mean(result.mrr):.3f}",
            "Recall@1 of each seed": ", ".join(f"{value:.3f}" for value in result.recall_at_1),
        }
        for result in comparison.results
    ]


def trial_table(trials: Sequence[Trial]) -> list[dict[str, str]]:
    """One row per trial, the best first."""
    ranked = sorted(trials, key=lambda trial: -trial.valid_mrr)
    return [
        {
            name.replace("_", " "): f"{value:.3g}" if isinstance(value, float) else str(value)
            for name, value in trial
        }
        for trial in ranked
    ]


def recipe_table(plan: Plan) -> list[dict[str, str]]:
    """What was tried in folds, the best first."""
    ranked = sorted(plan.tried, key=lambda each: -each.mrr)
    return [
        {
            "recipe": each.candidate.told,
            "MRR in folds": f"{each.mrr:.3f}",
            "above untouched": f"{each.above:+.3f} ± {each.error:.3f}",
        }
        for each in ranked
    ]


def metrics_table(
    untouched: Evaluation, article: Evaluation | None, fine_tuned: Evaluation
) -> list[dict[str, str]]:
    """One row per metric, what decides first; the UI shows some four columns at once."""
    of_splits = len(untouched.splits) > 1
    return [
        {
            "metric": f"{row.split} {row.metric}" if of_splits else row.metric,
            "untouched": _with_interval(row.untouched, row.untouched_interval),
            "article": _with_interval(row.article, row.article_interval),
            "fine-tuned": _with_interval(row.fine_tuned, row.fine_tuned_interval),
            "chance": "" if row.chance is None else f"{row.chance:.3f}",
        }
        for row in compare(untouched, article, fine_tuned)
    ]


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """A figure and where it lies with 95 %; "" if it was not measured."""
    if value is None:
        return ""
    return f"{value:.3f} ({_interval(interval)})" if interval else f"{value:.3f}"


def _interval(pair: tuple[float, float] | None) -> str:
    return f"{pair[0]:.2f}–{pair[1]:.2f}" if pair else ""


def funnel_table(funnel: Sequence[FunnelStage], work: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per stage: how many came in and were kept, why the others went, what was done now."""
    rows = [
        {
            "stage": stage.name,
            "found": stage.found,
            "kept": stage.kept,
            "in this run": work.get(stage.name, ""),
            "left out": ", ".join(f"{count} {reason}" for reason, count in stage.dropped.items()),
        }
        for stage in funnel
    ]
    others = [name for name in work if name not in {stage.name for stage in funnel}]
    return rows + [{"stage": name, "in this run": work[name]} for name in others]


def trainable_row(trainable: TrainableParameters) -> dict[str, str]:
    """How much of the model was trained, and which parameters."""
    more = len(trainable.names) - NAMES_SHOWN
    return {
        "total": f"{trainable.total:,}",
        "trainable": f"{trainable.trainable:,}",
        "share": f"{trainable.share:.2%}",
        "why": trainable.why or "named",
        "names": ", ".join(trainable.names[:NAMES_SHOWN])
        + (f" and {more} more" if more > 0 else ""),
    }


def misses_markdown(folder: Path) -> str:
    """The sheet of a report's worst misses, and below it their titles in full, in any script."""
    misses = json.loads((folder / "misses.json").read_bytes())
    heading = misses_heading(misses[0]["split"] if misses else None)
    if not misses:
        return f"# {heading}"
    rows = [
        f"| {miss['rank']} | {for_markdown(miss['title'])} | {miss['similarity']:.2f} "
        f"| {for_markdown(miss['chosen'])} | {miss['chosen_similarity']:.2f} |"
        for miss in misses
    ]
    head = [
        "| rank | its title | cosine | the model chose | cosine |",
        "| ---: | --- " * 2 + "| ---: |",
    ]
    return "\n".join([_picture(heading, folder / "misses.jpg"), "", *head, *rows])


def _picture(heading: str, file: Path) -> str:
    return f"# {heading}\n\n![{heading}]({data_uri(file.read_bytes())})"
