"""Task: pair each title with a negative title."""

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.data.negatives import Embeddings, pair_titles
from thumbtune.data.splits import SplitVideo, shuffled_order
from thumbtune.learning.title_vectors import title_vectors
from thumbtune.parameters import NegativesParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="mine-negatives",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=2),
)
def mine_negatives(
    workspace: Workspace,
    videos: Table,
    parameters: NegativesParameters,
    text_model: ModelReference | None,
    seed: int,
    shuffled: bool,
) -> Table:
    """Pair a table of `SplitVideo` with negative titles: a table of `Pair`.

    Args:
        text_model: the model that compares titles; None for methods that need none.
        shuffled: whether the pairs get the order of the shuffle that has split them. Negatives are
            mined in the order of the list, as in the article.
    """

    def embed(titles: list[str]) -> Embeddings:
        if text_model is None:
            raise ValueError(f"{parameters.method} needs a text model")
        return title_vectors(workspace, text_model, titles)

    rows = workspace.read_table(videos, SplitVideo)
    pairs = pair_titles(rows, parameters, seed, embed)
    if shuffled:
        pairs = [pairs[row] for row in shuffled_order(len(pairs), seed)]
    get_run_logger().info("Negatives (%s) for %d titles", parameters.method, len(pairs))
    return workspace.write_table("pairs", pairs)
