"""Divide the videos into train, valid and test."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from thumbtune.channel.listing import Video
from thumbtune.errors import UserError
from thumbtune.parameters import FOLDS, SPLITS, SplitParameters
from thumbtune.text.titles import same_title

Split = Literal["train", "valid", "test"]


NO_LOOKS: Mapping[str, str] = MappingProxyType({})

MANY = 10
"""Videos of one cover; up to so many are split like others, however small the channel."""


class SplitVideo(Video):
    """A video with its split."""

    split: Split
    look: str = ""
    """Equal for videos whose thumbnails are the same, or nearly; empty if that is not known."""

    @property
    def shares(self) -> list[str]:
        """What makes videos belong together that have one of it in common."""
        return shared_by(self, self.look)


def shared_by(video: Video, look: str) -> list[str]:
    """What a video has that others may have too: its title, and what its thumbnail looks like."""
    return [f"title {same_title(video.title)}", *([f"look {look}"] if look else [])]


def number_groups(rows: Sequence[SplitVideo]) -> NDArray[np.intp]:
    """Equal numbers for videos that belong together, from 0 up, shape (videos,)."""
    return joined_by([row.shares for row in rows])


def joined_by(shares: Sequence[Sequence[str]]) -> NDArray[np.intp]:
    """Equal numbers for rows that have something in common, from 0 up, shape (rows,).

    What two of them share they need not all share: a title may join what pictures do not.
    """
    from scipy.sparse import coo_array  # half a second, which a watch need not wait
    from scipy.sparse.csgraph import connected_components

    shared = [(row, key) for row, keys in enumerate(shares) for key in keys]
    places = {key: place for place, key in enumerate(dict.fromkeys(key for _, key in shared))}
    corner = [row for row, _ in shared], [len(shares) + places[key] for _, key in shared]
    size = len(shares) + len(places)
    graph = coo_array((np.ones(len(shared), bool), corner), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    groups: NDArray[np.intp] = components[: len(shares)].astype(np.intp)
    return groups


def fold_numbers(rows: Sequence[SplitVideo], seed: int, folds: int = FOLDS) -> NDArray[np.intp]:
    """The fold of each video, from 0 up, shape (videos,): what belongs together is in one.

    Their numbers of groups differ by one at most. The order of the rows does not count, and a new
    video moves few of the others: each group has a fold that it is put into as long as there is
    room (consistent hashing with bounded loads: arXiv:1608.01350).

    Raises:
        SplitTooSmallError: there are fewer groups than folds.
    """
    numbers = number_groups(rows).tolist()
    groups = defaultdict[int, list[Video]](list)
    for row, number in zip(rows, numbers, strict=True):
        groups[number].append(row)
    if len(groups) < folds:
        raise SplitTooSmallError(
            f"{len(rows)} videos are {len(groups)} groups that share a title or nearly a picture: "
            f"too few for {folds} folds. Add videos (a lower videos.min_duration_seconds keeps "
            "more), or ask for fewer folds."
        )
    keys = {f"{seed} {_group_key(group)}": number for number, group in groups.items()}
    fold_of = {keys[key]: fold for key, fold in _dealt(sorted(keys, key=_unit_hash), folds)}
    return np.array([fold_of[number] for number in numbers], np.intp)


def _dealt(keys: Sequence[str], folds: int) -> Iterator[tuple[str, int]]:
    """Keys with their folds: each its own, or the next one that has room."""
    least, larger = divmod(len(keys), folds)
    sizes = [0] * folds
    for key in keys:
        first = int(_unit_hash(f"fold of {key}") * folds)
        turn = ((first + step) % folds for step in range(folds))
        fold = next(fold for fold in turn if sizes[fold] < least + (larger > 0))
        larger -= sizes[fold] == least
        sizes[fold] += 1
        yield key, fold


class Assigned(BaseModel):
    """The split that a video was given once."""

    model_config = ConfigDict(frozen=True)

    id: str
    split: Split
    title: str
    """As it was then: a video of equal title joins it, also when it is gone."""
    picture: str = ""
    """The file of its thumbnail, named by the hash of its bytes: so does a video of that picture,
    such as one that is uploaded again under another title. Empty if it had none, and in what an
    earlier thumbtune wrote."""

    @classmethod
    def of(cls, video: SplitVideo, picture: str = "") -> Self:
        """As it is written down."""
        return cls(id=video.id, split=video.split, title=video.title, picture=picture)

    @property
    def shares(self) -> list[str]:
        """What a video may have in common with it when it is gone."""
        return [f"title {same_title(self.title)}", *_as_shared(self.picture)]

    def then(self, later: Self) -> Self:
        """What is known of it after it was written down again: its split stays."""
        picture = later.picture or self.picture  # a thumbnail may fail for a day
        return later.model_copy(update={"split": self.split, "picture": picture})


def _as_shared(picture: str) -> list[str]:
    return [f"picture {picture}"] if picture else []


class SplitTooSmallError(UserError, ValueError):
    """A split has too few videos to train or measure on."""


class UndatedVideosError(UserError, ValueError):
    """Videos that are to be split by time have no date."""


class SplitsNotGivenError(UserError, ValueError):
    """The videos did not come with the splits that `split.method` given needs."""


def divide_videos(
    videos: Sequence[Video],
    parameters: SplitParameters,
    seed: int,
    assigned: Sequence[Assigned] = (),
    looks: Mapping[str, str] = NO_LOOKS,
    pictures: Mapping[str, str] = NO_LOOKS,
    leaves_out: bool = False,
) -> list[SplitVideo]:
    """Give each video its split; the order of the videos stays.

    Args:
        assigned: what the method `hash` keeps to; each video once.
        looks: video → what its thumbnail looks like; equal for those that are nearly the same.
        pictures: video → its thumbnail as `Assigned` keeps it.
        leaves_out: whether the method `hash` leaves out videos that are `linking`, by which train
            would know of test.

    Raises:
        SplitTooSmallError: a split has fewer than `parameters.min_rows` videos.
        SplitsNotGivenError: the method is `given`, and a video or a split is missing.
        UndatedVideosError: the method is `time`, and a video has no date.
    """
    match parameters.method:
        case "hash":
            shares = parameters.train, parameters.valid
            splits = hash_splits(videos, *shares, assigned, looks, pictures)
        case "shuffle":
            splits = shuffled_splits(len(videos), parameters.train, parameters.valid, seed)
        case "given":
            splits = given_splits(videos)
        case "time":
            splits = time_splits(videos, parameters.train, parameters.valid, looks)
    links = set[str]()
    if leaves_out and parameters.method == "hash":
        links = linking(videos, assigned, looks, pictures)
    rows = [
        SplitVideo(**video.model_dump(exclude={"split"}), split=split, look=looks.get(video.id, ""))
        for video, split in zip(videos, splits, strict=True)
        if video.id not in links
    ]
    check_sizes(rows, parameters.min_rows)
    return rows


def hash_splits(
    videos: Sequence[Video],
    train: float,
    valid: float,
    assigned: Sequence[Assigned] = (),
    looks: Mapping[str, str] = NO_LOOKS,
    pictures: Mapping[str, str] = NO_LOOKS,
) -> list[Split]:
    """Give each video the split it was assigned before, or else place it by a hash.

    A video joins those that it belongs with: of its title (`same_title`), or of nearly the same
    thumbnail; of those that are gone, of the same. Those that are all new go together, placed by
    the id of the oldest one, so that what is split anew on another machine is split alike. Without
    dates they are placed by their title, as it is spelled first in the order of characters. A
    cover that many videos have is no test: if more than a tenth have it, they train.
    """
    own = {each.id: each.split for each in assigned}
    shares = _shares_of(videos, looks, pictures)
    known = _known_beside(shares, assigned)
    links = _linking(shares, known)
    of_id = {video.id: video for video in videos}
    most = max(MANY, len(videos) / 10)

    def split_of(group: list[str]) -> Split:
        """If it is of several, it is train: there it is known."""
        if beside := [split for id_ in group for split in known[id_]]:
            return min(beside, key=SPLITS.index)
        covers = Counter(looks[id_] for id_ in group if id_ in looks)
        if max(covers.values(), default=0) > most:
            return "train"
        return _split_at(_unit_hash(_group_key([of_id[id_] for id_ in group])), train, valid)

    groups = _together({id_: shares[id_] for id_ in known if id_ not in links})
    for group in [*groups, *([id_] for id_ in links)]:
        own |= dict.fromkeys(group, split_of(group))
    return [own[video.id] for video in videos]


def linking(
    videos: Sequence[Video],
    assigned: Sequence[Assigned],
    looks: Mapping[str, str] = NO_LOOKS,
    pictures: Mapping[str, str] = NO_LOOKS,
) -> set[str]:
    """Ids of new videos that belong with videos of several splits: with one by the title and with
    another by the thumbnail, or through other new ones."""
    shares = _shares_of(videos, looks, pictures)
    return _linking(shares, _known_beside(shares, assigned))


def _linking(shares: Mapping[str, list[str]], known: Mapping[str, set[Split]]) -> set[str]:
    """The same, of what each video has and of the splits beside each new one."""
    links = {id_ for id_, splits in known.items() if len(splits) > 1}
    for group in _together({id_: shares[id_] for id_ in known if id_ not in links}):
        if len({split for id_ in group for split in known[id_]}) > 1:
            links |= {id_ for id_ in group if known[id_]}
    return links


def _shares_of(
    videos: Sequence[Video], looks: Mapping[str, str], pictures: Mapping[str, str]
) -> dict[str, list[str]]:
    return {
        video.id: [
            *shared_by(video, looks.get(video.id, "")),
            *_as_shared(pictures.get(video.id, "")),
        ]
        for video in videos
    }


def _known_beside(
    shares: Mapping[str, list[str]], assigned: Sequence[Assigned]
) -> dict[str, set[Split]]:
    """New video → the splits of those with which it has something in common, here or gone."""
    held: dict[str, Split] = {}
    for each in assigned:
        for key in shares.get(each.id, each.shares):
            held[key] = min(held.get(key, each.split), each.split, key=SPLITS.index)
    new = shares.keys() - {each.id for each in assigned}
    return {
        id_: {held[key] for key in keys if key in held}
        for id_, keys in shares.items()
        if id_ in new
    }


def _together(shares: Mapping[str, list[str]]) -> list[list[str]]:
    """The ids of videos that belong together."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for number, id_ in zip(joined_by(list(shares.values())).tolist(), shares, strict=True):
        groups[number].append(id_)
    return list(groups.values())


def _group_key(group: Sequence[Video]) -> str:
    dated = [(video.published_at, video.id) for video in group if video.published_at]
    return f"id:{min(dated)[1]}" if dated else f"title:{min(video.title for video in group)}"


def _unit_hash(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def _split_at(place: float, train: float, valid: float) -> Split:
    if place < train:
        return "train"
    return "valid" if place < train + valid else "test"


def shuffled_splits(rows: int, train: float, valid: float, seed: int) -> list[Split]:
    """The article's split: pandas' seeded shuffle, then int(train n), int(valid n) and the rest."""
    last_train, last_valid = int(train * rows), int(train * rows) + int(valid * rows)
    splits: list[Split] = ["test"] * rows
    for place, row in enumerate(shuffled_order(rows, seed)):
        if place < last_valid:
            splits[row] = "train" if place < last_train else "valid"
    return splits


def shuffled_order(rows: int, seed: int) -> list[int]:
    """The row at each place of the article's shuffle; training meets the rows in this order."""
    import pandas as pd

    return pd.Series(range(rows)).sample(frac=1, random_state=seed).tolist()


def time_splits(
    videos: Sequence[Video], train: float, valid: float, looks: Mapping[str, str] = NO_LOOKS
) -> list[Split]:
    """The oldest videos train, the newest are test: a model is for videos that come after it.

    Videos that belong together go together, at the date of the oldest.

    Raises:
        UndatedVideosError: a video has no date.
    """
    undated = sum(video.published_at is None for video in videos)
    if undated:
        raise UndatedVideosError(
            f"split.method is `time`, but {undated} of {len(videos)} videos have no date. Choose "
            "split.method hash, or add the field publishedAt."
        )
    groups: defaultdict[int, list[int]] = defaultdict(list)
    shares = [shared_by(video, looks.get(video.id, "")) for video in videos]
    for row, number in enumerate(joined_by(shares).tolist()):
        groups[number].append(row)

    def age(rows: list[int]) -> tuple[str, str]:
        return min((str(videos[row].published_at), videos[row].id) for row in rows)

    splits: list[Split] = ["test"] * len(videos)
    older = 0
    for rows in sorted(groups.values(), key=age):
        for row in rows:
            splits[row] = _split_at(older / len(videos), train, valid)
        older += len(rows)
    return splits


def given_splits(videos: Sequence[Video]) -> list[Split]:
    """The splits that a hub dataset came with.

    Raises:
        SplitsNotGivenError: a video has none of train, valid and test, or one of them has no video.
    """
    found = Counter(video.split or "no split" for video in videos)
    wrong = found.total() - sum(found[split] for split in SPLITS)
    empty = [split for split in SPLITS if videos and not found[split]]
    missing = [f"{wrong} of {len(videos)} videos came without a split (train, valid or test)"]
    missing = (missing if wrong else []) + [f"none came in {split}" for split in empty]
    if missing:
        counts = ", ".join(f"{name} {count}" for name, count in found.items())
        raise SplitsNotGivenError(
            f"split.method is `given`, but {', '.join(missing)}; the dataset has: {counts}. Choose "
            "split.method hash or shuffle, or name the dataset's splits train, validation and test."
        )
    return cast("list[Split]", [video.split for video in videos])


def seen_in_train(rows: Sequence[SplitVideo]) -> dict[str, int]:
    """How many videos of valid and of test share a title or a thumbnail with one of train."""
    trained = {key for row in rows if row.split == "train" for key in row.shares}
    return {
        split: sum(row.split == split and not trained.isdisjoint(row.shares) for row in rows)
        for split in ("valid", "test")
    }


JOINS = "hash puts a new video beside those of its title or of nearly the same thumbnail."
APART = {
    "hash": "a video keeps its split when its title or its thumbnail is changed, or a later one "
    "links it with another split. Other shares (split.train, split.valid) split all anew, what "
    "belongs together in one.",
    "shuffle": JOINS,
    "given": JOINS,
}
"""Method → how it comes that equal titles or thumbnails stand apart, and what joins them."""


def leakage(rows: Sequence[SplitVideo], method: str) -> str | None:
    """What to say of what stands in train and outside of it too; None if nothing does."""
    seen = seen_in_train(rows)
    if not any(seen.values()):
        return None
    counts = " and ".join(f"{count} videos of {split}" for split, count in seen.items() if count)
    return (
        f"{counts} have titles that train has too (case and invisible characters do not count), or "
        f"nearly the same thumbnails, so what is measured there is too good. "
        f"split.method is {method}; {APART[method]}"
    )


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
