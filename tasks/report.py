"""Step: write down what came of it, as files beside the model."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from tasks.caching import content_key
from tasks.evaluation import Evaluation, Prediction, article_key
from tasks.figures import loss_curve, miss_sheet, thumbnail_jpeg, worst_misses
from tasks.parameters import SPLITS, TrainParameters
from tasks.thumbnails import Example
from tasks.training import TrainedModel
from tasks.workspace import Table, Workspace, write_atomically


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


class Comparison(BaseModel):
    """One metric on one split, of the untouched and of the fine-tuned model."""

    model_config = ConfigDict(frozen=True)

    split: str
    rows: int
    metric: str
    chance: float | None
    untouched: float
    untouched_interval: tuple[float, float] | None
    fine_tuned: float
    fine_tuned_interval: tuple[float, float] | None


class Report(BaseModel):
    """The files of a report, relative to the workspace."""

    model_config = ConfigDict(frozen=True)

    folder: str

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether all its files are still there."""
        names = ("metrics.json", "parameters.json", "report.html", "loss_curve.png", "misses.jpg")
        return all((workspace.root / self.folder / name).exists() for name in names)


def compare(untouched: Evaluation, fine_tuned: Evaluation) -> list[Comparison]:
    """Both models side by side, on the test split first."""
    rows = []
    for split in reversed(SPLITS):
        before, after = untouched.splits[split], fine_tuned.splits[split]
        rows += [
            Comparison(
                split=split,
                rows=before.rows,
                metric=metric,
                chance=before.chance.get(metric),
                untouched=before.metrics[metric],
                untouched_interval=before.intervals.get(metric),
                fine_tuned=after.metrics[metric],
                fine_tuned_interval=after.intervals.get(metric),
            )
            for metric in before.metrics
        ]
    return rows


def metrics_json(
    trained: TrainedModel,
    untouched: Evaluation,
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
        "rows": {split: of_split.rows for split, of_split in untouched.splits.items()},
        "chance": flat(untouched, "chance"),
        "untouched": flat(untouched, "metrics"),
        "untouched_95_percent": flat(untouched, "intervals"),
        "fine_tuned": flat(fine_tuned, "metrics"),
        "fine_tuned_95_percent": flat(fine_tuned, "intervals"),
        "trainable_parameters": {
            **trained.trainable.model_dump(),
            "share": trained.trainable.share,
        },
        "best_epoch": trained.best_epoch,
        "training_seconds": round(trained.seconds, 1),
        "data_funnel": [stage.model_dump() for stage in funnel],
    }


def report_html(workspace: Workspace, **facts: Any) -> str:
    """The report as one page that needs no other file; titles are escaped."""
    environment = Environment(
        loader=PackageLoader("tasks"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template("report.html.jinja").render(
        **facts, thumbnail=lambda example: thumbnail_jpeg(workspace, example)
    )


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG picture as a `data:` address."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


@task(
    name="report",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=2),
)
def write_report(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: list[FunnelStage],
    examples: Table,
    trained: TrainedModel,
    untouched: Evaluation,
    fine_tuned: Evaluation,
) -> Report:
    """Write metrics.json, parameters.json, report.html and its pictures beside the model."""
    folder = Path(trained.model.path).parent
    misses = worst_misses(
        workspace.read_table(examples, Example),
        workspace.read_table(fine_tuned.predictions, Prediction),
    )
    curve = loss_curve(trained.history, trained.best_epoch)
    page = report_html(
        workspace,
        parameters=parameters,
        funnel=funnel,
        comparisons=compare(untouched, fine_tuned),
        trained=trained,
        base=untouched.model.name,
        misses=misses,
        curve=curve,
    )
    metrics = metrics_json(trained, untouched, fine_tuned, funnel)
    contents = {
        "metrics.json": json.dumps(metrics, indent=1).encode(),
        "parameters.json": parameters.model_dump_json(indent=1).encode(),
        "loss_curve.png": curve,
        "misses.jpg": miss_sheet(workspace, misses),
        "report.html": page.encode(),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    get_run_logger().info("Report: %s", folder / "report.html")
    return Report(folder=str(folder.relative_to(workspace.root)))
