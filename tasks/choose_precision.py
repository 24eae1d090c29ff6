"""Task: choose the precision that the frozen towers run in."""

from collections.abc import Sequence

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.features import ChosenPrecision, precision_for
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import Example
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="choose-precision",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=3),
)
def choose_precision(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    wanted: Precision,
) -> ChosenPrecision:
    """Choose the precision once, for all partitions of a table of `Example`."""
    if wanted == "float32":
        return ChosenPrecision(precision=wanted)
    loaded = load_model(model, workspace)
    set_trainable(loaded, fragments)
    rows = workspace.read_table(examples, Example)
    precision, why = precision_for(workspace, loaded, rows, wanted)
    if why:
        get_run_logger().warning("features.precision: float32 is used, since %s", why)
    return ChosenPrecision(precision=precision)
