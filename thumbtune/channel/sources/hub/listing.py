"""Source `hub`: a dataset of the Hugging Face hub, or a folder that holds one.

Columns as in the article's `shawhin/yt-title-thumbnail-pairs`: video_id, title, thumbnail_url and
optionally title_neg; instead of the URL there may be a column image with the pictures themselves,
or with their addresses. Their types are checked by `thumbtune.channel.sources.hub.columns`.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetBuilder, DatasetDict, Features, Image, Value, config
from huggingface_hub import constants

from thumbtune.channel.listing import Video
from thumbtune.channel.sources.hub.columns import Column, find_columns
from thumbtune.errors import SourceError
from thumbtune.hub.problems import hub_problem, not_found
from thumbtune.names.dataset_name import local_folder
from thumbtune.store.disk import disk_error
from thumbtune.store.workspace import Workspace

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval", "evaluation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How datasets call their splits → how they are called here."""

SHOWN = 20  # configurations that an error lists

Row = dict[str, Any]


def list_hub(
    workspace: Workspace, name: str, say: Callable[[str], object] = lambda _: None
) -> list[Video]:
    """Read a dataset's videos, split after split; one without an id has an empty one.

    Args:
        name: hub id such as owner/name, or the folder of a dataset: as `save_to_disk` writes it,
            a clone of a hub repository, or pictures with a metadata file. `:configuration` behind
            it chooses one of several.
        say: is told what was read otherwise than as it stands.

    Raises:
        SourceError: no such dataset, or a column is missing or of no use; names the mend.
    """
    folder, _ = local_folder(name)
    splits = load_splits(name)
    named = len(splits) > 1  # a lone split, mostly called train, divides nothing
    videos: list[Video] = []
    notes: dict[str, None] = {}
    for split_name, dataset in splits.items():
        columns = find_columns(name, _features(dataset))
        notes |= dict.fromkeys(column.note for column in columns.values() if column.note)
        split = SPLIT_NAMES.get(split_name.casefold(), split_name) if named else None
        for row in _rows(name, dataset, columns):
            videos.append(_video(workspace, row, split, folder))
    for note in [*notes, *_unknown(splits if named else {})]:
        say(f"The dataset {name}: {note}.")
    return videos


def _unknown(splits: dict[str, Dataset]) -> Iterator[str]:
    for name, dataset in splits.items():
        if name.casefold() not in SPLIT_NAMES:
            yield f"its split {name!r} ({len(dataset)} rows) is none of train, valid and test"


def load_splits(name: str) -> DatasetDict:
    """Load a dataset from a folder or from the hub; scripts of the hub are never run.

    Raises:
        SourceError: it cannot be had; names the mend.
    """
    folder, configuration = local_folder(name)
    place = name.removesuffix(f":{configuration}") if configuration is not None else name
    try:
        if folder and _is_saved(folder):
            saved = datasets.load_from_disk(str(folder))
            return saved if isinstance(saved, DatasetDict) else DatasetDict(train=saved)
        builder = datasets.load_dataset_builder(str(folder or place), configuration or None)
        _check_files(name, builder, folder)
        builder.download_and_prepare()
        return builder.as_dataset()
    except SourceError:
        raise
    except Exception as error:  # whatever a stranger's files make `datasets` and its readers raise
        if full := disk_error(error):
            raise full from None
        raise _explained(error, name, place, folder) from None


def _check_files(name: str, builder: DatasetBuilder, folder: Path | None) -> None:
    """Read no file but a dataset's own: the head of its README may name any, or any address."""
    splits = builder.config.data_files or {}
    for file in (str(file) for of_split in splits.values() for file in of_split):
        own = file.startswith("hf://")
        if folder:
            own = "://" not in file and _is_own(Path(file), folder)
        if not own:
            raise SourceError(
                f"channel: the dataset {name!r} names the file {file!r:.200}, which lies outside "
                "of it. Put the file inside, and mend data_files in its README.md."
            )


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((folder / file).exists() for file in ("dataset_dict.json", "state.json"))


def _explained(error: Exception, name: str, place: str, folder: Path | None) -> SourceError:
    """The error to raise for one of `datasets`."""
    if isinstance(error, ValueError) and (choice := _choice(name, place, folder)):
        return SourceError(choice)
    if folder is None and (problem := hub_problem(error, place, "channel", "dataset")):
        return SourceError(problem.message)
    if folder is None and type(error) is FileNotFoundError:  # others say: no data in it
        return SourceError(not_found(place, "channel", "dataset").message)
    return SourceError(
        f"channel: the dataset {name!r} cannot be read ({_said(error)}). {_mend(folder)}"
    )


def _said(error: BaseException) -> str:
    """What an error, or the one that it came from, says, on one line."""
    while error.__cause__:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _mend(folder: Path | None) -> str:
    if folder and any(_is_pointer(file) for file in folder.rglob("*") if file.is_file()):
        return "Its files are pointers of Git LFS: run `git lfs pull` in it."
    if folder:
        return (
            "Give a folder that save_to_disk wrote, a clone of a dataset of the hub (Parquet, CSV "
            "or JSON Lines), or pictures with a metadata.csv."
        )
    return "Look at it on its page of the hub, or give a dataset of Parquet, CSV or JSON Lines."


def _is_pointer(file: Path) -> bool:
    """Whether `git clone` left a file's place-holder, since Git LFS is not there."""
    with suppress(OSError), file.open("rb") as stream:
        return stream.read(40).startswith(b"version https://git-lfs")
    return False


def _choice(name: str, place: str, folder: Path | None) -> str | None:
    """What to say if a dataset has several configurations and none of them was chosen."""
    try:
        known = datasets.get_dataset_config_names(str(folder or place))
    except Exception:  # then it is not about them
        return None
    chosen = name.removeprefix(place).removeprefix(":")
    if chosen in known or (not chosen and len(known) < 2):
        return None
    shown = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" * (len(known) > SHOWN))
    said = f"has no configuration {chosen!r}, but" if chosen else "has several configurations:"
    return f"channel: the dataset {place!r} {said} {shown}. Give one, such as {place}:{known[0]}."


def _features(dataset: Dataset) -> Features:
    """The columns' types; one without a single value counts as empty, whatever its type."""
    empty = {
        name: Value("null")
        for name in dataset.column_names
        if dataset.data.column(name).null_count == len(dataset.data)
    }
    return Features({**dataset.features, **empty})


def _rows(name: str, dataset: Dataset, columns: dict[str, Column]) -> Iterator[Row]:
    """What a video needs → its value, row by row; nothing is decoded.

    Raises:
        SourceError: the stored rows are damaged.
    """
    wanted = {column.name for column in columns.values()}
    try:
        dataset = dataset.with_format(None).select_columns([*wanted])
        for column in wanted:
            if isinstance(dataset.features[column], Image):
                dataset = dataset.cast_column(column, Image(decode=False))
        rows: Any = dataset
        for row in rows:
            yield {need: column.read(row[column.name]) for need, column in columns.items()}
    except Exception as error:  # whatever damaged files make Arrow raise
        raise SourceError(
            f"channel: the rows of the dataset {name!r} cannot be read ({_said(error)}). Make it "
            "anew."
        ) from None


def _video(workspace: Workspace, row: Row, split: str | None, folder: Path | None) -> Video:
    place = {"high": row["url"]} if row.get("url") else {}
    return Video(
        id=row["id"],
        title=row["title"],
        thumbnails=place or _picture(workspace, row.get("image") or "", folder),
        split=split,
        title_neg=row.get("title_neg") or None,
    )


def _picture(workspace: Workspace, image: bytes | str, folder: Path | None) -> dict[str, str]:
    """Where a row's picture is: at its address, or, put there now, in the workspace.

    Raises:
        SourceError: the dataset names a file that is not its own.
    """
    if isinstance(image, str) and image.lower().startswith(("https://", "http://")):
        return {"high": image}
    data = _own_file(image, folder) if image and isinstance(image, str) else image
    if not data:
        return {}
    path = f"hub/{hashlib.sha256(data).hexdigest()}"
    workspace.write_file(path, data)
    return {"file": path}


def _own_file(path: str, folder: Path | None) -> bytes:
    """A file that came with a dataset, empty if it is missing.

    Raises:
        SourceError: it is another one: a stranger's dataset may name any file of this machine.
    """
    file = (folder or Path()) / path
    try:
        own = _is_own(file, folder)
    except (OSError, RuntimeError, ValueError):  # too long, links in a ring, a NUL
        return b""
    if not own:
        raise SourceError(
            f"channel: the dataset's image {path!r:.200} lies outside of it. Use a dataset that "
            "holds its pictures' bytes, or the addresses of pictures (https://…)."
        )
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _is_own(file: Path, folder: Path | None) -> bool:
    """Whether a file lies in the dataset's folder, or among what was downloaded from the hub."""
    places = (config.HF_CACHE_HOME, constants.HF_HUB_CACHE, *([folder] if folder else []))
    own = [Path(place).expanduser().resolve() for place in places]
    return any(file.resolve().is_relative_to(place) for place in own)
