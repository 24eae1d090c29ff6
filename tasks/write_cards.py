"""Task: write the model card and the dataset card."""

from prefect import task

from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.cards import Cards, dataset_card, model_card
from thumbtune.reporting.report import FunnelStage
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="write-cards",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=5),
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
    folder = trained.folder(workspace)
    rows = {name: split.rows for name, split in untouched.splits.items()}
    cards = {
        "model/README.md": model_card(parameters, funnel, trained, untouched, fine_tuned).encode(),
        "dataset/README.md": dataset_card(parameters, funnel, rows).encode(),
    }
    return Cards.write(workspace, folder, cards)
