"""Which videos of a channel have the same thumbnail, or nearly the same.

A picture is compared once, when it is new, and with those that share its words alone; with one that
is away then, as that of a private video, when it is back. What was found is kept in
`looks/<channel>.safetensors`, so that five new videos cost five pictures.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors import numpy as tensors
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from thumbtune.data.looks import View, are_nearly_the_same, look_at
from thumbtune.data.splits import joined_by
from thumbtune.data.thumbnails import Thumbnail, load_cropped, stored_picture
from thumbtune.store.workspace import Workspace, checksum

TABLES, BITS = 16, 24
"""Two views of a corner differ in a tenth of their bits, so one of sixteen draws of 24 agrees for
most, and hardly ever for two corners that are not the same (locality-sensitive hashing, Indyk and
Motwani 1998)."""

NEAREST, NEAREST_KNOWN = 8, 24
"""How many pictures a new one is compared with, by each measure: of those that are new too, and of
those that were there. A caption's corners may be more than those of a small drawing under it."""

LEAST_LIKENESS = 0.02
"""Cosine of what two pictures' words weigh; of copies one in fifty has less."""

COMMON = 2_000
"""A word that more pictures have, such as a corner of the channel's logo, tells nothing."""

BLOCK = 512  # pictures whose likeness to all others is in memory at once
IN_MEMORY = 2_000  # pictures; 100 kB each

Picture = tuple[str, tuple[int, int, int, int] | None]
"""File and crop."""


class Look(BaseModel):
    """What a video's thumbnail looks like."""

    model_config = ConfigDict(frozen=True)

    id: str
    look: str
    """Equal for thumbnails that are the same, or nearly."""
    picture: str = ""
    """Equal for the same picture at all times, while a look may change with what joins it."""


class Seen(NamedTuple):
    """Pictures that were compared."""

    names: list[str]
    words: NDArray[np.int32]
    """Hashed, of one picture after the other, shape (words,)."""
    counts: NDArray[np.int32]
    """Words of each picture, shape (pictures,)."""
    grids: NDArray[np.float32]
    """Shape (pictures, 64)."""
    pairs: NDArray[np.int32]
    """Nearly the same: numbers of pictures, shape (pairs, 2)."""
    put_off: NDArray[np.int32]
    """To be compared when both are there, alike."""

    @classmethod
    def nothing(cls) -> Self:
        """Before the first picture."""
        return cls(
            [],
            np.zeros(0, np.int32),
            np.zeros(0, np.int32),
            np.zeros((0, 64), np.float32),
            _as_rows(()),
            _as_rows(()),
        )

    @classmethod
    def read(cls, workspace: Workspace, file: str) -> Self:
        """What was kept; nothing if it is gone or damaged."""
        try:
            mark, _, data = workspace.read(file).partition(b"\n")
            if mark.decode() != checksum(data):
                return cls.nothing()
            found = tensors.load(data)
            names = json.loads(found.pop("names").tobytes())
            return cls(names, *(found[name] for name in cls._fields[1:]))
        except (OSError, ValueError, KeyError, SafetensorError):
            return cls.nothing()

    def keep(self, workspace: Workspace, file: str) -> None:
        """Write it down."""
        names = np.frombuffer(json.dumps(self.names).encode(), np.uint8)
        rest = {name: getattr(self, name) for name in self._fields[1:]}
        data = tensors.save({"names": names, **rest})
        workspace.write(file, f"{checksum(data)}\n".encode() + data)


def looks_of(workspace: Workspace, channel: str, thumbnails: Sequence[Thumbnail]) -> list[Look]:
    """What the thumbnails look like, of those videos that have one.

    Args:
        channel: the name of its folder in the registry.

    Raises:
        DamagedThumbnailError: a picture was damaged after it was fetched.
    """
    pictures = {
        name_of(thumbnail): (thumbnail.image, thumbnail.crop)
        for thumbnail in thumbnails
        if thumbnail.image
    }
    file = f"looks/{channel}.safetensors"
    known = Seen.read(workspace, file)
    seen = compare(known, pictures, lambda picture: _load(workspace, picture))
    if seen is not known:
        seen.keep(workspace, file)
    looks = dict(zip(seen.names, _groups(seen), strict=True))
    return [
        Look(id=thumbnail.video_id, look=looks[name_of(thumbnail)], picture=thumbnail.image)
        for thumbnail in thumbnails
        if thumbnail.image
    ]


def name_of(thumbnail: Thumbnail) -> str:
    """Of a picture as it is seen: its file is named by the hash of its bytes."""
    return f"{thumbnail.image} {thumbnail.crop}"


def _load(workspace: Workspace, picture: Picture) -> list[View]:
    file, crop = picture
    return look_at(load_cropped(stored_picture(workspace, file), crop))


def compare(
    known: Seen, pictures: dict[str, Picture], load: Callable[[Picture], list[View]]
) -> Seen:
    """Look at pictures that are new, and compare them with all; and what was put off.

    Returns:
        `known` itself if there is nothing to compare.
    """
    there = set(known.names)
    new = [name for name in pictures if name not in there]
    at_hand = {row for row, name in enumerate([*known.names, *new]) if name in pictures}
    put_off = {(one, other) for one, other in known.put_off.tolist()}
    if not new and not any(at_hand.issuperset(pair) for pair in put_off):
        return known
    load = lru_cache(IN_MEMORY)(load)
    # OpenCV solves for one map of six numbers by BLAS, whose threads would fight over the cores
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor() as pool:
        summaries = list(pool.map(lambda name: _summary(load(pictures[name])), new))
        seen = _with(known, new, summaries)
        likely = put_off | (likely_pairs(seen, len(known.names)) if new else set())
        pairs = sorted(pair for pair in likely if at_hand.issuperset(pair))

        def same(pair: tuple[int, int]) -> bool:
            one, other = (load(pictures[seen.names[row]]) for row in pair)
            return are_nearly_the_same(one, other)

        alike = [pair for pair, yes in zip(pairs, pool.map(same, pairs), strict=True) if yes]
    return seen._replace(
        pairs=np.concatenate([seen.pairs, _as_rows(alike)]),
        put_off=_as_rows(sorted(likely.difference(pairs))),
    )


def _as_rows(pairs: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    return np.array(pairs, np.int32).reshape(-1, 2)


Summary = tuple[NDArray[np.int32], NDArray[np.float32]]
"""A picture's hashed words, shape (words,), and its grid."""


def _with(known: Seen, new: Sequence[str], summaries: Sequence[Summary]) -> Seen:
    """Pictures that are not compared yet, after those that were."""
    counts = np.array([len(words) for words, _ in summaries], np.int32)
    return known._replace(
        names=[*known.names, *new],
        words=np.concatenate([known.words, *(words for words, _ in summaries)]),
        counts=np.concatenate([known.counts, counts]),
        grids=np.concatenate([known.grids, *(grid[None] for _, grid in summaries)]),
    )


def _summary(views: Sequence[View]) -> Summary:
    bits = np.unpackbits(np.concatenate([view.words for view in views]), axis=1)
    hashed = bits[:, _draws()] @ (1 << np.arange(BITS)) + (np.arange(TABLES) << BITS)
    return np.unique(hashed).astype(np.int32), views[-1].grid


@cache
def _draws() -> NDArray[np.intp]:
    """Which bits of a word each table hashes, shape (tables, bits)."""
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(256, BITS, replace=False) for _ in range(TABLES)])


def likely_pairs(seen: Seen, known: int) -> set[tuple[int, int]]:
    """Pictures that may be nearly the same, of which one at least is new.

    Args:
        known: how many of the pictures have been compared before.
    """
    words = _weighed_words(seen)
    pairs: set[tuple[int, int]] = set()
    for start in range(known, len(seen.names), BLOCK):
        block = slice(start, min(start + BLOCK, len(seen.names)))
        by_words = (words[block] @ words.T).toarray()
        by_words[by_words < LEAST_LIKENESS] = 0
        by_grid = seen.grids[block] @ seen.grids.T
        pairs |= _nearest(by_words[:, :known], start, 0, NEAREST_KNOWN)
        pairs |= _nearest(by_words[:, known:], start, known, NEAREST)
        pairs |= _nearest(by_grid, start, 0, NEAREST)
    return {pair for pair in pairs if pair[0] != pair[1]}


def _weighed_words(seen: Seen) -> csr_array:
    """How much each word of a picture tells, rare ones most; rows of length 1."""
    pictures = np.repeat(np.arange(len(seen.names)), seen.counts)
    words, places, held = np.unique(seen.words, return_inverse=True, return_counts=True)
    told = np.where(held <= COMMON, np.log1p(len(seen.names) / held), 0)
    shape = len(seen.names), len(words)
    weighed = csr_array((np.sqrt(told[places]).astype(np.float32), (pictures, places)), shape)
    size = np.sqrt(np.maximum(np.asarray(weighed.power(2).sum(axis=1)).ravel(), 1e-9))
    return csr_array(weighed.multiply(1 / size[:, None]))


def _nearest(
    likeness: NDArray[np.float32], first_row: int, first_column: int, count: int
) -> set[tuple[int, int]]:
    """The nearest pictures of each row's, as pairs of numbers."""
    near = np.argsort(-likeness, axis=1)[:, : count + 1]  # it may be near itself
    return {
        (min(one, other), max(one, other))
        for row, columns in enumerate(near.tolist())
        for column in columns
        if likeness[row, column] > 0
        for one, other in [(row + first_row, column + first_column)]
    }


def _groups(seen: Seen) -> Iterator[str]:
    """A name for each picture's group, the same on every machine."""
    shares: list[list[str]] = [[] for _ in seen.names]
    for pair in seen.pairs.tolist():
        for picture in pair:
            shares[picture].append(str(pair))
    groups = joined_by(shares).tolist()
    first: dict[int, str] = {}
    for group, name in sorted(zip(groups, seen.names, strict=True)):
        first.setdefault(group, hashlib.sha256(name.encode()).hexdigest()[:16])
    return (first[group] for group in groups)
