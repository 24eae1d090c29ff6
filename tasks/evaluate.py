"""Task: measure Recall@k of one model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task

from thumbtune.clip.towers import Precision
from thumbtune.parameters import EvaluationParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key

if TYPE_CHECKING:
    pass
from thumbtune.learning.evaluation import Evaluation, evaluate_model


@task(
    name="evaluate",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=6),
)
def evaluate(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: EvaluationParameters,
    precision: Precision,
) -> Evaluation:
    """Measure one model on every split of a table of `Example`; see `evaluate_model`."""
    how = (fragments, parameters, precision)
    return evaluate_model(workspace, model, examples, *how)
