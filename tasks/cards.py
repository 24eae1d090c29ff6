"""Step: write the model card and the dataset card, with the figures of the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData
from prefect import task

from tasks.caching import content_key
from tasks.evaluation import Evaluation
from tasks.parameters import TrainParameters
from tasks.report import Comparison, FunnelStage, Report, compare
from tasks.training import TrainedModel
from tasks.workspace import Workspace, write_atomically

TEMPLATES = Path(__file__).parent / "templates"


def channel_name(parameters: TrainParameters) -> str:
    """How cards call the channel: never by a path of this machine."""
    if parameters.source == "folder":
        return Path(parameters.channel or "").expanduser().resolve().name
    return parameters.channel or "thumbtune's sample channel"


def model_card(
    parameters: TrainParameters,
    funnel: Sequence[FunnelStage],
    trained: TrainedModel,
    untouched: Evaluation,
    fine_tuned: Evaluation,
) -> str:
    """The README.md of the model, with its metrics as the hub's evaluation results.

    https://huggingface.co/docs/hub/model-cards
    """
    comparisons = compare(untouched, fine_tuned)
    base = untouched.model.name
    on_hub = not Path(base).is_absolute() and base.count("/") == 1
    name = parameters.publish.model_repo or f"CLIP for {channel_name(parameters)}"
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "clip", "image-text-retrieval", "thumbtune"],
        datasets=[parameters.publish.dataset_repo] if parameters.publish.dataset_repo else None,
        model_name=name,
        eval_results=[_result(row, parameters) for row in comparisons if row.split == "test"],
    )
    return str(
        ModelCard.from_template(
            data,
            template_path=str(TEMPLATES / "model_card.md"),
            name=name,
            channel=channel_name(parameters),
            base=base if on_hub else Path(base).name,
            repo=parameters.publish.model_repo or "model",
            trained=trained,
            training=parameters.training,
            negatives=parameters.negatives,
            comparisons=comparisons,
            funnel=funnel,
        )
    )


def _result(row: Comparison, parameters: TrainParameters) -> EvalResult:
    return EvalResult(
        task_type="image-text-retrieval",
        dataset_type=parameters.publish.dataset_repo or "thumbtune",
        dataset_name=channel_name(parameters),
        dataset_split=row.split,
        metric_type=row.metric,
        metric_value=round(row.fine_tuned, 4),
    )


def dataset_card(
    parameters: TrainParameters, funnel: Sequence[FunnelStage], rows: dict[str, int]
) -> str:
    """The README.md of the dataset.

    https://huggingface.co/docs/hub/datasets-cards
    """
    data = DatasetCardData(
        tags=["youtube", "thumbnails", "thumbtune"],
        task_categories=["sentence-similarity"],
        pretty_name=f"Titles and thumbnails of {channel_name(parameters)}",
    )
    return str(
        DatasetCard.from_template(
            data,
            template_path=str(TEMPLATES / "dataset_card.md"),
            channel=channel_name(parameters),
            split=parameters.split,
            negatives=parameters.negatives,
            rows=rows,
            funnel=funnel,
        )
    )


class Cards(Report):
    """Where the cards lie: README.md in the model's folder, dataset/README.md beside it."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether both are still there."""
        folder = workspace.root / self.folder
        return all((folder / name / "README.md").exists() for name in ("model", "dataset"))


@task(
    name="write-cards",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def write_cards(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: list[FunnelStage],
    trained: TrainedModel,
    untouched: Evaluation,
    fine_tuned: Evaluation,
) -> Cards:
    """Write the model card into the model's folder and the dataset card beside it."""
    folder = Path(trained.model.path).parent
    rows: dict[str, Any] = {name: split.rows for name, split in untouched.splits.items()}
    card = model_card(parameters, funnel, trained, untouched, fine_tuned)
    write_atomically(folder / "model" / "README.md", card.encode())
    card = dataset_card(parameters, funnel, rows)
    write_atomically(folder / "dataset" / "README.md", card.encode())
    return Cards(folder=str(folder.relative_to(workspace.root)))
