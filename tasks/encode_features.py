"""Task: run the frozen towers once over pictures and titles."""

from collections.abc import Sequence

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.features import Encoded, encode_partition
from thumbtune.clip.towers import Precision
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="encode-features",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4),
)
def encode_features(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    precision: Precision,
    start: int,
    stop: int,
) -> Encoded:
    """Encode the pictures and titles of one partition of a table of `Example`; they are stored.

    Args:
        start, stop: the partition's first row, and the row after its last.
    """
    encoded = encode_partition(workspace, model, examples, fragments, precision, start, stop)
    for kind in encoded.encoded:
        get_run_logger().info(
            "Features of %ss, videos %d to %d: %d encoded, %d from the store",
            kind,
            start + 1,
            stop,
            encoded.encoded[kind],
            encoded.reused[kind],
        )
    return encoded
