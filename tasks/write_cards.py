"""Task: write the model card and the dataset card."""

from collections import Counter

from prefect import task

from thumbtune.data.thumbnails import Example
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.cards import Cards, dataset_card, model_card
from thumbtune.reporting.report import FunnelStage, pairs_of
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="write-cards",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=8),
)
def write_cards(
    workspace: Workspace,
    parameters: TrainParameters,
    funnel: list[FunnelStage],
    examples: Table,
    plan: Plan,
    trained: TrainedModel,
    untouched: Evaluation,
    article: Evaluation | None,
    fine_tuned: Evaluation,
) -> Cards:
    """Write the model card into the model's folder and the dataset card beside it."""
    folder = trained.folder(workspace)
    rows = workspace.read_table(examples, Example)
    splits = Counter[str](row.split for row in rows)
    models = (plan, trained, untouched, article, fine_tuned)
    pairs = pairs_of(workspace, rows, fine_tuned)
    cards = {
        "model/README.md": model_card(parameters, funnel, *models, pairs).encode(),
        "dataset/README.md": dataset_card(parameters, funnel, dict(splits)).encode(),
    }
    return Cards.write(workspace, folder, cards)
