"""Task: choose the precision that the frozen towers run in."""

from collections.abc import Sequence

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.models import load_model
from thumbtune.clip.precision import ChosenPrecision, may_be_faster, precision_for
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import Example
from thumbtune.parameters import WantedPrecision
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="choose-precision",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4),
)
def choose_precision(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    wanted: WantedPrecision,
) -> ChosenPrecision:
    """Choose the precision once, for all partitions of a table of `Example`."""
    if not may_be_faster(wanted, examples.rows):
        return ChosenPrecision(precision="float32")
    loaded = load_model(model, workspace)
    set_trainable(loaded, fragments)
    rows = workspace.read_table(examples, Example)
    chosen = precision_for(workspace, loaded, rows, wanted)
    if chosen.told:
        as_asked = chosen.precision != "float32"
        log = get_run_logger().info if as_asked else get_run_logger().warning
        log("features.precision: %s", chosen.told)
    return chosen
