"""Step: divide the videos into train, valid and test."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

import pandas as pd
from prefect import task
from prefect.logging import get_run_logger

from tasks.caching import content_key
from tasks.errors import UserError
from tasks.parameters import SPLITS, SplitParameters
from tasks.sources import Video
from tasks.workspace import Table, Workspace

Split = Literal["train", "valid", "test"]


class SplitVideo(Video):
    """A video with its split."""

    split: Split


class SplitTooSmallError(UserError, ValueError):
    """A split has too few videos to train or measure on."""


class NoSplitError(UserError, ValueError):
    """The splits that came with a dataset are asked for, and a video has none."""


def split_videos(
    videos: Sequence[Video], parameters: SplitParameters, seed: int
) -> list[SplitVideo]:
    """Give each video its split; the order of the videos stays.

    Raises:
        SplitTooSmallError: a split has fewer than `parameters.min_rows` videos.
    """
    match parameters.method:
        case "hash":
            splits = hash_splits(videos, parameters.train, parameters.valid)
        case "shuffle":
            splits = shuffled_splits(len(videos), parameters.train, parameters.valid, seed)
        case "given":
            splits = given_splits(videos)
    rows = [
        SplitVideo(**video.model_dump(exclude={"split"}), split=split)
        for video, split in zip(videos, splits, strict=True)
    ]
    check_sizes(rows, parameters.min_rows)
    return rows


def hash_splits(videos: Sequence[Video], train: float, valid: float) -> list[Split]:
    """Place each video by a hash, so that it keeps its split as the channel grows.

    Videos of equal title go together, placed by the id of the oldest one: a later video joins it,
    and an edited title moves no other video. Without dates they are placed by their title.
    """
    groups: defaultdict[str, list[Video]] = defaultdict(list)
    for video in videos:
        groups[video.title].append(video)
    places = {title: _unit_hash(_group_key(group)) for title, group in groups.items()}
    return [_split_at(places[video.title], train, valid) for video in videos]


def _group_key(group: Sequence[Video]) -> str:
    dated = [(video.published_at, video.id) for video in group if video.published_at]
    return f"id:{min(dated)[1]}" if dated else f"title:{group[0].title}"


def _unit_hash(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def _split_at(place: float, train: float, valid: float) -> Split:
    if place < train:
        return "train"
    return "valid" if place < train + valid else "test"


def shuffled_splits(rows: int, train: float, valid: float, seed: int) -> list[Split]:
    """The article's split: pandas' seeded shuffle, then int(train n), int(valid n) and the rest."""
    order = pd.Series(range(rows)).sample(frac=1, random_state=seed)
    last_train, last_valid = int(train * rows), int(train * rows) + int(valid * rows)
    splits: list[Split] = ["test"] * rows
    for place, row in enumerate(order):
        if place < last_valid:
            splits[row] = "train" if place < last_train else "valid"
    return splits


def given_splits(videos: Sequence[Video]) -> list[Split]:
    """The splits that a hub dataset came with.

    Raises:
        NoSplitError: a video has none.
    """
    splits = [video.split for video in videos if video.split]
    if len(splits) < len(videos):
        raise NoSplitError(
            f"split.method is `given`, but {len(videos) - len(splits)} of {len(videos)} videos "
            "came without a split (train, valid or test). Choose split.method hash or shuffle."
        )
    return splits


def check_sizes(rows: Sequence[SplitVideo], min_rows: int) -> None:
    """Stop if a split is too small to train or measure on."""
    sizes: Counter[str] = Counter(row.split for row in rows)
    for split in SPLITS:
        if sizes[split] < min_rows:
            counts = ", ".join(f"{name} {sizes[name]}" for name in SPLITS)
            raise SplitTooSmallError(
                f"The {split} split has {sizes[split]} of {len(rows)} videos ({counts}), fewer "
                f"than split.min_rows={min_rows}. Add videos (a lower "
                "videos.min_duration_seconds keeps more), change split.train and split.valid, or "
                "lower split.min_rows."
            )


@task(
    name="split-videos",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def split(workspace: Workspace, videos: Table, parameters: SplitParameters, seed: int) -> Table:
    """Divide a table of `Video` into splits: a table of `SplitVideo`."""
    rows = split_videos(workspace.read_table(videos, Video), parameters, seed)
    sizes: Counter[str] = Counter(row.split for row in rows)
    get_run_logger().info("Split: %s", ", ".join(f"{name} {sizes[name]}" for name in SPLITS))
    return workspace.write_table("splits", rows)
