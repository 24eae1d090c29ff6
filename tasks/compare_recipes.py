"""Task: hold the sweep's choice against the article's recipe."""

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.towers import Precision
from thumbtune.data.thumbnails import Example
from thumbtune.learning.recipes import Recipe, RecipeComparison, RecipeTrainer, compare
from thumbtune.parameters import TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="compare-recipes",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=3),
)
def compare_recipes(
    workspace: Workspace,
    model: ModelReference,
    text_model: ModelReference | None,
    examples: Table,
    parameters: TrainParameters,
    best: Recipe,
    seeds: int,
    precision: Precision,
) -> RecipeComparison:
    """Hold the sweep's choice against the article's recipe on the test split."""
    rows = workspace.read_table(examples, Example)
    trainer = RecipeTrainer(workspace, model, text_model, rows, parameters, precision)
    comparison = compare(trainer, rows, best, seeds)
    for result in comparison.results:
        get_run_logger().info("Recall@1 on test, %s: %s", result.name, result.told)
    return comparison
