"""Source `hub`: a dataset of the Hugging Face hub, or one saved by `DatasetDict.save_to_disk`.

Columns as in the article's `shawhin/yt-title-thumbnail-pairs`: video_id, title, thumbnail_url and
optionally title_neg; instead of the URL there may be a column image with the pictures themselves.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import datasets
from datasets import Dataset, DatasetDict, Image, config
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from tasks.sources import SourceError, Video
from tasks.workspace import Workspace

SPLIT_NAMES: dict[str, Literal["train", "valid", "test"]] = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}


def list_hub(workspace: Workspace, name: str) -> list[Video]:
    """Read a dataset's videos, split after split.

    Args:
        name: hub id such as owner/name, or the folder of a saved Dataset or DatasetDict.

    Raises:
        SourceError: no such dataset, or a column is missing; the message names the mend.
    """
    splits = load_splits(name)
    named = len(splits) > 1  # a lone split, mostly called train, divides nothing
    videos = []
    for split_name, dataset in splits.items():
        _check_columns(name, dataset)
        split = SPLIT_NAMES.get(split_name) if named else None
        videos += [_video(workspace, row, split) for row in _rows(dataset)]
    return videos


def load_splits(name: str) -> DatasetDict:
    """Load a dataset from a folder or from the hub; scripts of the hub are never run."""
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            saved = datasets.load_from_disk(str(folder))
            return saved if isinstance(saved, DatasetDict) else DatasetDict(train=saved)
        return datasets.load_dataset(name)
    except (OfflineModeIsEnabled, ConnectionError) as error:
        raise SourceError(
            f"channel: the dataset {name!r} is not here and the Hugging Face hub does not answer "
            f"({type(error).__name__}). Check the network and HF_HUB_OFFLINE."
        ) from None
    except (DatasetNotFoundError, FileNotFoundError, ValueError) as error:
        raise SourceError(
            f"channel: {name!r} is neither a saved dataset nor one on the Hugging Face hub "
            f"({error}). Check the spelling; for a private dataset set HF_TOKEN."
        ) from None


def _check_columns(name: str, dataset: Dataset) -> None:
    missing = [column for column in ("video_id", "title") if column not in dataset.column_names]
    if not {"thumbnail_url", "image"} & set(dataset.column_names):
        missing.append("thumbnail_url (or image)")
    if missing:
        raise SourceError(
            f"channel: the dataset {name!r} lacks the column {', '.join(missing)}; it has "
            f"{', '.join(dataset.column_names)}. Rename its columns."
        )


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    if "image" in dataset.column_names:
        dataset = dataset.cast_column("image", Image(decode=False))
    rows: Iterable[dict[str, Any]] = dataset
    yield from rows


def _video(
    workspace: Workspace, row: dict[str, Any], split: Literal["train", "valid", "test"] | None
) -> Video:
    url = row.get("thumbnail_url")
    place = {"high": str(url)} if url else {"file": _stored_picture(workspace, row.get("image"))}
    return Video(
        id=str(row["video_id"]),
        title=str(row["title"] or "").strip(),
        thumbnails=place if any(place.values()) else {},
        split=split,
        title_neg=row.get("title_neg"),
    )


def _stored_picture(workspace: Workspace, image: dict[str, Any] | None) -> str:
    """Put a dataset's picture into the workspace; its path there.

    Raises:
        SourceError: the dataset names a file that is not its own.
    """
    if not image:
        return ""
    data = image["bytes"] or _own_file(image["path"] or "").read_bytes()
    path = f"hub/{hashlib.sha256(data).hexdigest()}"
    workspace.write_file(path, data)
    return path


def _own_file(path: str) -> Path:
    """A file that came with a dataset; a stranger's dataset may name any file of this machine."""
    file = Path(path).resolve()
    caches = (config.HF_CACHE_HOME, constants.HF_HUB_CACHE)
    if not any(file.is_relative_to(Path(cache).expanduser().resolve()) for cache in caches):
        raise SourceError(
            f"channel: the dataset's image {path!r} lies outside of it. Use a dataset that holds "
            "its pictures' bytes."
        )
    return file
