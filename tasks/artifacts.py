"""What a run shows in the Prefect UI: tables, the training curves and the worst misses.

Posted by every run, also by one that took all its results from the cache. Pictures are `data:`
addresses inside markdown, which the UI shows as they are (tried with 3.8.8, up to 2.4 MB). An image
artifact shows one too, but prints its whole address below.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from thumbtune.channel.field_scores import FieldScore
from thumbtune.clip.freezing import TrainableParameters
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.promotion import Verdict
from thumbtune.learning.recipes import RecipeComparison, Sweep, Trial
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.figures import misses_heading
from thumbtune.reporting.report import FunnelStage, Report, compare, data_uri, parameter_table
from thumbtune.store.workspace import Workspace
from thumbtune.text.escaping import as_code, for_markdown, in_cells

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
    """Post the artifacts of a run, from inside its flow; their keys keep a history over the runs.

    Args:
        work: stage → what this run had to do for it.
        report: its files must still be in the workspace.
    """
    page = f"{workspace}/{report.folder}/report.html"
    create_table_artifact(
        metrics_table(untouched, article, fine_tuned),
        key="metrics",
        description=f"Of {as_code(untouched.model.name)}. The whole report: {as_code(page)}",
    )
    create_table_artifact(
        recipe_table(plan),
        key="recipe",
        description=f"{plan.candidate.told}: {plan.why}.",
    )
    create_table_artifact(
        in_cells(parameter_table(parameters)),
        key="parameters",
        description="All that this run was asked.",
    )
    create_table_artifact(
        in_cells(funnel_table(funnel, work)),
        key="data-funnel",
        description="What came in, what was left out, and what this run had to do for it.",
    )
    create_table_artifact(
        in_cells([trainable_row(trained.trainable)]),
        key="trainable-parameters",
        description="How much of the model is trained; the rest is frozen.",
    )
    pictures = ["misses.json", "misses.jpg", *(["loss_curve.png"] if trained.history else [])]
    misses, *_ = workspace.places(f"{report.folder}/{name}" for name in pictures)
    if trained.history:
        curve = misses.parent / "loss_curve.png"
        create_markdown_artifact(
            _picture("Loss and validation MRR over the epochs", curve), key="loss-curve"
        )
    create_markdown_artifact(misses_markdown(misses.parent), key="worst-misses")


def post_verdict(verdict: Verdict) -> None:
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
        key="promotion",
        description=f"Version {verdict.version} {for_markdown(verdict.why)}. Champion: version "
        f"{verdict.champion or 'none'}.",
    )


def post_field_score(score: FieldScore) -> None:
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
    create_table_artifact(rows, key="field", description=f"Version {score.version}: {score}.")


def post_sweep_artifacts(
    workspace: Workspace, sweep: Sweep, comparison: RecipeComparison, report: Report
) -> None:
    """Post the artifacts of a sweep, from inside its flow."""
    create_table_artifact(
        comparison_table(comparison),
        key="sweep-comparison",
        description=f"Test split, {comparison.videos} videos, which no trial has seen. The best "
        f"parameters: {as_code(f'{workspace}/{report.folder}/best_parameters.json')}",
    )
    create_table_artifact(
        trial_table(workspace.read_table(sweep.trials, Trial)),
        key="sweep-trials",
        description=f"By validation MRR, mean over {sweep.folds} fold(s); the best comes first.",
    )
    create_markdown_artifact(
        _picture("Validation MRR of each trial", workspace.place(f"{report.folder}/trials.png")),
        key="sweep-plot",
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
    """One row per split and metric, what decides first; the UI shows the first columns at once."""
    return [
        {
            "split": row.split,
            "metric": row.metric,
            "chance": "" if row.chance is None else f"{row.chance:.3f}",
            "untouched": f"{row.untouched:.3f}",
            "article's recipe": "" if row.article is None else f"{row.article:.3f}",
            "fine-tuned": f"{row.fine_tuned:.3f}",
            "change": f"{row.change:+.3f}",
            "untouched 95 %": _interval(row.untouched_interval),
            "fine-tuned 95 %": _interval(row.fine_tuned_interval),
        }
        for row in compare(untouched, article, fine_tuned)
    ]


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
