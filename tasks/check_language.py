"""Task: see whether the model reads the language of the titles."""

from prefect import task

from thumbtune.clip.languages import Advice, advice_on
from thumbtune.data.thumbnails import Example
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="check-language",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def check_language(workspace: Workspace, model: ModelReference, examples: Table) -> Advice:
    """Say which model to take instead if most titles are not in a language that this one knows."""
    titles = [row.title for row in workspace.read_table(examples, Example)]
    return advice_on(titles, model, workspace)
