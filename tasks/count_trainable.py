"""Task: freeze the encoder but for its projections, and count what is left to train."""

from collections.abc import Sequence

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.freezing import TrainableParameters
from thumbtune.clip.models import load_clip
from thumbtune.clip.trainable import set_trainable
from thumbtune.store.model_reference import ModelReference
from thumbtune.tasks.caching import content_key


@task(
    name="freeze",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=2),
)
def count_trainable(model: ModelReference, fragments: Sequence[str]) -> TrainableParameters:
    """Freeze a model as training will, and count: a wrong fragment fails before any download."""
    counted = set_trainable(load_clip(model), fragments)
    get_run_logger().info(
        "Trainable: %s of %s parameters (%.2f %%): %s",
        f"{counted.trainable:,}",
        f"{counted.total:,}",
        100 * counted.share,
        counted.why or "those that training.trainable names",
    )
    return counted
