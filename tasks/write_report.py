"""Task: write the figures, and the page that shows them."""

from prefect import task

from thumbtune.channel.registry import Decision
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.report import FunnelStage, Report, write_page
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="report",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=9),
)
def write_report(
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
    figures = (plan, trained, untouched, article, fine_tuned)
    return write_page(workspace, parameters, funnel, examples, *figures, notes, became)
