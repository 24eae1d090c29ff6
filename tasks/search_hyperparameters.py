"""Task: search the hyperparameters that validate best."""

from prefect import task

from thumbtune.clip.towers import Precision
from thumbtune.learning.recipes import Sweep
from thumbtune.learning.sweep import search_recipe
from thumbtune.parameters import SearchParameters, TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="search-hyperparameters",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4),
)
def search_hyperparameters(
    workspace: Workspace,
    model: ModelReference,
    text_model: ModelReference | None,
    examples: Table,
    parameters: TrainParameters,
    options: SearchParameters,
    precision: Precision,
) -> Sweep:
    """Find the recipe that validates best on a table of `Example`; see `search_recipe`."""
    models = (model, text_model)
    return search_recipe(workspace, *models, examples, parameters, options, precision)
