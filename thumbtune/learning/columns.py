"""The columns that the loss reads: anchor, positive, negative."""

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from sentence_transformers.util.distributed import get_world_size

from thumbtune.clip.features import image_key, title_key
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.learning.batches import Columns, with_filler
from thumbtune.store.workspace import Workspace


def training_dataset(workspace: Workspace, examples: Sequence[Example]) -> Dataset:
    """Columns anchor (thumbnail), positive (its title) and, if there are any, negative.

    MultipleNegativesRankingLoss reads the columns by position. Thumbnails are decoded when a batch
    is drawn, so memory holds one batch of them.
    """
    columns = _columns(examples, image=lambda example: example.image, title=str)
    by_image = {example.image: example for example in examples}

    def decode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [load_image(workspace, by_image[image]) for image in batch["anchor"]]
        return {**batch, "anchor": images}

    return Dataset.from_dict(columns).with_transform(decode)


def feature_dataset(examples: Sequence[Example]) -> Dataset:
    """The same columns, of the keys of stored features."""
    return Dataset.from_dict(feature_columns(examples))


def feature_columns(examples: Sequence[Example]) -> Columns:
    """What `feature_dataset` has. To make a dataset takes a third as long as a small training."""
    return _columns(examples, image=image_key, title=title_key)


def _columns(
    examples: Sequence[Example], image: Callable[[Example], str], title: Callable[[str], str]
) -> Columns:
    columns = {
        "anchor": [image(example) for example in examples],
        "positive": [title(example.title) for example in examples],
    }
    if all(example.title_neg for example in examples):
        columns["negative"] = [title(example.title_neg or "") for example in examples]
    return with_filler(columns) if get_world_size() > 1 else columns
