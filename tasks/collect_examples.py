"""Task: join the pairs of titles with their thumbnails."""

from prefect import task

from thumbtune.data.negatives import Pair
from thumbtune.data.splits import check_sizes
from thumbtune.data.thumbnails import ThumbnailBatch, examples_of
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="collect-examples",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def collect_examples(
    workspace: Workspace,
    pairs: Table,
    fetched: ThumbnailBatch,
    max_bad_share: float,
    min_rows: int,
) -> Table:
    """Join a table of `Pair` with the fetched thumbnails: a table of `Example`."""
    rows = workspace.read_table(pairs, Pair)
    examples, dropped = examples_of(rows, fetched.thumbnails, max_bad_share)
    check_sizes(examples, min_rows)
    return workspace.write_table("examples", examples, dropped)
