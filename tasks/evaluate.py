"""Task: measure Recall@k of one model."""

from collections.abc import Sequence

from prefect import task

from thumbtune.clip.towers import Precision
from thumbtune.learning.evaluation import Evaluation, evaluate_model
from thumbtune.parameters import EvaluationParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="evaluate",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=8),
)
def evaluate(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: EvaluationParameters,
    precision: Precision,
    in_folds: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Measure one model on every split of a table of `Example`; see `evaluate_model`."""
    how = (fragments, parameters, precision, in_folds, seed)
    return evaluate_model(workspace, model, examples, *how)
