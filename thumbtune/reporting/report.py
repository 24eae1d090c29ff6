"""Write down what came of it, as files beside the model."""

import base64
import csv
import io
import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict

from thumbtune.channel.registry import Decision, Registry
from thumbtune.channel.source import short_name, source_of
from thumbtune.channel.views import views_of
from thumbtune.data.splits import leakage
from thumbtune.data.thumbnails import Example
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation, Prediction, article_key
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.metrics import Described, described
from thumbtune.parameters import SPLITS, TrainParameters, in_rows
from thumbtune.reporting.figures import (
    Miss,
    loss_curve,
    miss_sheet,
    misses_heading,
    thumbnail_jpeg,
    worst_misses,
)
from thumbtune.reporting.insights import Pair, best, mismatched, slices, together
from thumbtune.reporting.views import FitAndViews, fit_and_views
from thumbtune.store.workspace import Table, Workspace, fingerprint
from thumbtune.text.escaping import for_spreadsheet, without_code

logger = logging.getLogger(__name__)


class FunnelStage(BaseModel):
    """How many rows a step left, and why others went."""

    model_config = ConfigDict(frozen=True)

    name: str
    found: int
    kept: int
    dropped: dict[str, int]

    @classmethod
    def of(cls, name: str, table: Table) -> "FunnelStage":
        """The stage that wrote a table."""
        found = table.rows + sum(table.dropped.values())
        return cls(name=name, found=found, kept=table.rows, dropped=table.dropped)


def left_out(funnel: Sequence[FunnelStage]) -> str:
    """How many rows each step left out, and why, in words."""
    told = []
    for stage in funnel:
        reasons = ", ".join(f"{count} {reason}" for reason, count in stage.dropped.items())
        because = f" ({reasons})" if reasons else ""
        told.append(f"{stage.found - stage.kept} of {stage.found} {stage.name}{because}")
    return f"Left out: {'; '.join(told)}."


class Comparison(BaseModel):
    """One metric on one split, of the untouched model, the article's recipe and the new model."""

    model_config = ConfigDict(frozen=True)

    split: str
    rows: int
    metric: str
    chance: float | None
    """What a model gets that knows nothing, where that can be told."""
    untouched: float
    untouched_interval: tuple[float, float] | None
    article: float | None = None
    """None if it was not measured."""
    article_interval: tuple[float, float] | None = None
    fine_tuned: float
    fine_tuned_interval: tuple[float, float] | None

    @property
    def described(self) -> Described:
        """What is measured, in words."""
        return described(self.metric)

    @property
    def change(self) -> float:
        """Fine-tuned minus untouched."""
        return self.fine_tuned - self.untouched

    @property
    def is_better(self) -> bool:
        """Whether the fine-tuned model does better."""
        return self.change > 0 if self.described.metric.higher_is_better else self.change < 0


class Report(BaseModel):
    """The files of a report, beside the model.

    Runs that train alike but measure otherwise share the folder; the fingerprints tell whose
    report lies there.
    """

    model_config = ConfigDict(frozen=True)

    folder: str
    """Relative to the workspace."""
    files: dict[str, str]
    """Name → fingerprint of the content."""

    @classmethod
    def write(cls, workspace: Workspace, folder: str, contents: dict[str, bytes]) -> Self:
        """Write the files, each at once as a whole."""
        for name, content in contents.items():
            workspace.write(f"{folder}/{name}", content)
        return cls(
            folder=folder,
            files={name: fingerprint(content) for name, content in contents.items()},
        )

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether all its files are still there, unchanged: in the bucket, and here."""
        return all(
            workspace.holds_now(f"{self.folder}/{name}", mark) for name, mark in self.files.items()
        )


def compare(
    untouched: Evaluation, article: Evaluation | None, fine_tuned: Evaluation
) -> list[Comparison]:
    """The models side by side, on what decides first."""
    rows = []
    for split in reversed(untouched.splits):
        before, after = untouched.splits[split], fine_tuned.splits[split]
        between = article.splits[split] if article else None
        rows += [
            Comparison(
                split=split,
                rows=before.rows,
                metric=metric,
                chance=before.chance.get(metric, described(metric).metric.chance),
                untouched=before.metrics[metric],
                untouched_interval=before.intervals.get(metric),
                article=between.metrics.get(metric) if between else None,
                article_interval=between.intervals.get(metric) if between else None,
                fine_tuned=after.metrics[metric],
                fine_tuned_interval=after.intervals.get(metric),
            )
            for metric in before.metrics
        ]
    return rows


def metrics_json(
    plan: Plan,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
    funnel: Sequence[FunnelStage],
) -> dict[str, Any]:
    """All figures of a run; metrics under the article's names."""

    def flat(evaluation: Evaluation, values: str) -> dict[str, Any]:
        return {
            article_key(split, metric): value
            for split, of_split in evaluation.splits.items()
            for metric, value in getattr(of_split, values).items()
        }

    return {
        "models": {"untouched": untouched.model.name, "fine_tuned": fine_tuned.model.name},
        "rows": {split: of_split.rows for split, of_split in untouched.splits.items()},
        "chance": flat(untouched, "chance"),
        "untouched": flat(untouched, "metrics"),
        "untouched_95_percent": flat(untouched, "intervals"),
        **(
            {
                "article": flat(article, "metrics"),
                "article_95_percent": flat(article, "intervals"),
            }
            if article
            else {}
        ),
        "fine_tuned": flat(fine_tuned, "metrics"),
        "fine_tuned_95_percent": flat(fine_tuned, "intervals"),
        "trainable_parameters": {
            **trained.trainable.model_dump(),
            "share": trained.trainable.share,
        },
        "recipe": plan.candidate.model_dump(exclude_none=True),
        "why": plan.why,
        "tried": [each.model_dump(exclude_none=True) for each in plan.tried],
        "judged_on": fine_tuned.judged_on,
        "gallery": fine_tuned.judged.gallery,
        "trained_on": trained.trained_on,
        "best_epoch": trained.best_epoch,
        "training_seconds": round(trained.seconds, 1),
        "data_funnel": [stage.model_dump() for stage in funnel],
    }


def misses_json(misses: Sequence[Miss]) -> list[dict[str, Any]]:
    """The misses in words: what was asked, what was chosen, and how near either was (cosine)."""
    return [
        {
            "split": prediction.split,
            "video_id": prediction.video_id,
            "title": example.title,
            "rank": prediction.rank,
            "similarity": prediction.similarity,
            "chosen": prediction.top_title,
            "chosen_similarity": prediction.top_similarity,
        }
        for example, prediction in misses
    ]


def parameter_table(parameters: TrainParameters) -> list[dict[str, str]]:
    """One row per parameter, named as on the command line."""
    return [{"parameter": name, "value": value} for name, value in in_rows(parameters)]


def html_templates(package: str) -> Environment:
    """The templates of a package; every value that they show is escaped."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["without_code"] = without_code
    return environment


def report_html(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: Sequence[FunnelStage],
    examples: Sequence[Example],
    plan: Plan,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
    misses: Sequence[Miss],
    curves: Sequence[bytes],
    notes: Sequence[str] = (),
    views: FitAndViews | None = None,
    became: Decision | None = None,
) -> str:
    """The report as one page that needs no other file but for predictions.csv; titles are escaped.

    Args:
        curves: of the training, for a wide page and for a phone; empty if there were no epochs.
        notes: sentences that whoever reads the figures should know.
        views: whether fit and views go together, where that is known.
        became: what was decided on the version.
    """
    comparisons = compare(untouched, article, fine_tuned)
    pairs = pairs_of(workspace, examples, fine_tuned)
    judged = fine_tuned.judged
    template = html_templates("thumbtune.reporting").get_template("report.html.jinja")
    return template.render(
        notes=notes,
        views=views,
        became=became,
        was=untouched.judged.metrics["Recall@1"],
        now=judged.metrics["Recall@1"],
        written=f"{datetime.now(UTC):%Y-%m-%d}",
        watch=source_of(parameters.source).address_of,
        channel=short_name(parameters.source, parameters.channel or "the sample channel"),
        base=untouched.model.name,
        trained=trained,
        plan=plan,
        judged_on=fine_tuned.judged_on,
        judged=judged,
        headline=headline(comparisons, fine_tuned.judged_on),
        splits={
            split: [row for row in comparisons if row.split == split] for split in untouched.splits
        },
        names=SPLIT_NAMES,
        slices=slices(pairs),
        best=_pictured(workspace, best(pairs)),
        mismatched=_pictured(workspace, mismatched(pairs, judged.gallery or judged.rows)),
        together=[alike.examples for alike in together(examples)],
        funnel=funnel,
        heading=misses_heading(misses[0].prediction.split if misses else None),
        misses=_pictured(workspace, misses),
        curves=[data_uri(curve) for curve in curves],
        parameters=[
            {"stage": stage, "name": name, "value": row["value"]}
            for row in parameter_table(parameters)
            for stage, _, name in [row["parameter"].rpartition(".")]
        ],
    )


PLAIN_ID = re.compile(r"[\w-]+")
"""Such as YouTube's, of which one in 64 begins with a dash: a program must find it as it is."""

PREDICTIONS = "predictions.csv"
"""Of the videos that decide; the page links to it."""

SPLIT_NAMES = {
    "out_of_fold": "all videos, each out of its fold",
    **{split: split for split in SPLITS},
}
"""What splits are called on a page."""


def pairs_of(
    workspace: Workspace, examples: Sequence[Example], evaluation: Evaluation
) -> list[Pair]:
    """The videos that decide, with what the model answered to each."""
    rows = {example.id: example for example in examples}
    answers = workspace.read_table(evaluation.predictions, Prediction)
    return [
        Pair(rows[answer.video_id], answer)
        for answer in answers
        if answer.split == evaluation.judged_on
    ]


def _pictured(workspace: Workspace, pairs: Sequence[Pair | Miss]) -> list[tuple[Pair | Miss, str]]:
    return [(pair, data_uri(thumbnail_jpeg(workspace, pair.example))) for pair in pairs]


def predictions_csv(pairs: Sequence[Pair]) -> str:
    """What the model answered, for a spreadsheet: a line for each video."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["video_id", "title", "rank", "cosine", "first_title", "first_cosine"])
    for example, answer in pairs:
        cosine, first = f"{answer.similarity:.4f}", f"{answer.top_similarity:.4f}"
        id_ = example.id if PLAIN_ID.fullmatch(example.id) else for_spreadsheet(example.id)
        row = [id_, for_spreadsheet(example.title), answer.rank, cosine]
        writer.writerow([*row, for_spreadsheet(answer.top_title), first])
    return file.getvalue()


def headline(comparisons: Sequence[Comparison], judged_on: str) -> list[Comparison]:
    """What a report begins with: of each metric that has a sentence both ways, side by side."""
    rows = [row for row in comparisons if row.split == judged_on and row.described.headline]
    order = list(dict.fromkeys(row.described.metric.name for row in rows))
    return sorted(rows, key=lambda row: order.index(row.described.metric.name))


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG picture as a `data:` address."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def write_page(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: list[FunnelStage],
    examples: Table,
    plan: Plan,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
    notes: list[str],
    became: Decision | None,
) -> Report:
    """Write the figures, the pictures and the page that shows them beside the model.

    Args:
        notes: what whoever reads the figures should know.
        became: what was decided on the version.
    """
    folder = trained.folder(workspace)
    rows = workspace.read_table(examples, Example)
    misses = worst_misses(rows, workspace.read_table(fine_tuned.predictions, Prediction))
    drawn = (trained.history, trained.best_epoch)
    curves = [loss_curve(*drawn, phone) for phone in (False, True)] if trained.history else []
    models = (plan, trained, untouched, article, fine_tuned)
    metrics = metrics_json(*models, funnel)
    leak = leakage(rows, parameters.split.method) if plan.method == "holdout" else None
    notes = [*notes, *([leak] if leak else [])]
    pairs = pairs_of(workspace, rows, fine_tuned)
    fits = {example.id: answer.similarity for example, answer in pairs}
    registry = Registry(workspace, parameters.source, parameters.channel)
    views = fit_and_views(fits, rows, views_of(registry))
    said = (notes, views, became)
    page = report_html(workspace, parameters, funnel, rows, *models, misses, curves, *said)
    contents = {
        "metrics.json": json.dumps(metrics, indent=1, allow_nan=False).encode(),
        "parameters.json": parameters.model_dump_json(indent=1).encode(),
        "misses.json": json.dumps(misses_json(misses), indent=1, ensure_ascii=False).encode(),
        PREDICTIONS: predictions_csv(pairs).encode(),
        **({"loss_curve.png": curves[0]} if curves else {}),
        "misses.jpg": miss_sheet(workspace, misses),
        "report.html": page.encode(),
    }
    logger.info("Report: %s/%s/report.html", workspace, folder)
    return Report.write(workspace, folder, contents)
