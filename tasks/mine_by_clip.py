"""Task: pair each thumbnail with the wrong title that CLIP itself takes most for its own."""

from collections.abc import Sequence

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.towers import Precision
from thumbtune.learning.pairing import pair_examples_by_clip
from thumbtune.parameters import NegativesParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="mine-negatives-by-clip",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def mine_by_clip(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: NegativesParameters,
    precision: Precision,
) -> Table:
    """Give a table of `Example` its negatives, by the features that are stored by now."""
    paired = pair_examples_by_clip(workspace, model, examples, fragments, parameters, precision)
    get_run_logger().info("Negatives (clip) for %d titles", paired.rows)
    return paired
