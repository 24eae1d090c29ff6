"""What a run shows in the Prefect UI: tables, the loss curve and the sheet of misses.

Posted by every run, also by one that took all its results from the cache.
"""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.evaluation import Evaluation
from tasks.parameters import TrainParameters
from tasks.report import FunnelStage, Report, compare, data_uri
from tasks.training import TrainedModel
from tasks.workspace import Workspace


def post_artifacts(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: Sequence[FunnelStage],
    trained: TrainedModel,
    untouched: Evaluation,
    fine_tuned: Evaluation,
    report: Report,
) -> None:
    """Post the artifacts of a run; their keys keep a history over the runs."""
    folder = workspace.root / report.folder
    create_table_artifact(
        metrics_table(untouched, fine_tuned),
        key="metrics",
        description=f"Of {untouched.model.name}. The whole report: {folder / 'report.html'}",
    )
    create_table_artifact(parameter_table(parameters), key="parameters")
    create_table_artifact(
        [
            {
                "stage": stage.name,
                "in": stage.found,
                "out": stage.kept,
                "left out": ", ".join(f"{n} {reason}" for reason, n in stage.dropped.items()),
            }
            for stage in funnel
        ],
        key="data-funnel",
    )
    trainable = trained.trainable
    create_table_artifact(
        [
            {
                "total": f"{trainable.total:,}",
                "trainable": f"{trainable.trainable:,}",
                "share": f"{trainable.share:.2%}",
                "names": ", ".join(trainable.names),
            }
        ],
        key="trainable-parameters",
    )
    for key, name, title in (
        ("loss-curve", "loss_curve.png", "Loss over the epochs"),
        ("worst-misses", "misses.jpg", "Worst misses on the test split"),
    ):
        picture = data_uri((folder / name).read_bytes())
        create_markdown_artifact(f"# {title}\n\n![{title}]({picture})", key=key)


def metrics_table(untouched: Evaluation, fine_tuned: Evaluation) -> list[dict[str, Any]]:
    """One row per split and metric."""
    return [
        {
            "split": row.split,
            "metric": row.metric,
            "chance": "" if row.chance is None else f"{row.chance:.3f}",
            "untouched": round(row.untouched, 4),
            "fine-tuned": round(row.fine_tuned, 4),
            "95 %": _interval(row.fine_tuned_interval),
            "change": round(row.fine_tuned - row.untouched, 4),
        }
        for row in compare(untouched, fine_tuned)
    ]


def _interval(pair: tuple[float, float] | None) -> str:
    return f"{pair[0]:.3f} to {pair[1]:.3f}" if pair else ""


def parameter_table(parameters: TrainParameters) -> list[dict[str, str]]:
    """One row per parameter, named as on the command line."""
    rows = []
    for name, value in parameters.model_dump(mode="json").items():
        stage = value if isinstance(value, dict) else {"": value}
        rows += [
            {"parameter": f"{name}.{field}".rstrip("."), "value": str(setting)}
            for field, setting in stage.items()
        ]
    return rows
