"""Task: choose the recipe, and measure it by a cross-fit."""

from prefect import task

from thumbtune.clip.towers import Precision
from thumbtune.learning.candidates import Candidate
from thumbtune.learning.choosing import Plan
from thumbtune.learning.choosing import plan_run as plan
from thumbtune.parameters import TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="plan-run",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4),
)
def plan_run(
    workspace: Workspace,
    model: ModelReference,
    text_model: ModelReference | None,
    examples: Table,
    parameters: TrainParameters,
    precision: Precision,
    others: list[Candidate],
) -> Plan:
    """Choose the recipe by folds, and measure it by a cross-fit, if that is asked."""
    return plan(workspace, model, text_model, examples, parameters, precision, others)
