"""Keep the embeddings of a thumbnail library, and search it by words or by a picture.

Below `EXACT_BELOW` pictures every vector is compared: one matrix product, a few milliseconds.
Beyond, usearch's HNSW graph (arXiv:1603.09320) of 8-bit vectors finds candidates, which the float32
vectors then rank. Why usearch: LanceDB takes milliseconds even for a thousand vectors and brings
180 MB; faiss-cpu brings an OpenMP of its own, which crashes beside torch's on macOS
(faiss-wheels issue 73), and its HNSW cannot remove a picture.

An index belongs to a model and a library: `indexes/<model>/<channels or folders>/<name>/`. Its
files are named by their checksum, and index.json, which is written last, names them; so a reader
sees the old index or the new one, and a killed run leaves the old one.
"""

import contextlib
import hashlib
import mmap
import os
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from PIL import Image
from pydantic import AwareDatetime, BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from usearch.index import Index as Graph

from thumbtune.channel.listing import Video
from thumbtune.channel.registry import Version
from thumbtune.channel.source import registry_name
from thumbtune.channel.sources.fields import is_unicode
from thumbtune.channel.sources.folder.listing import is_channel, is_local, list_folder
from thumbtune.channel.sources.pictures import ENDINGS, file_version, files_below
from thumbtune.clip.features import head_on, picture_key, reads_features
from thumbtune.clip.towers import pools_once
from thumbtune.data.thumbnails import (
    BadThumbnailError,
    ThumbnailBatch,
    letterbox,
    load_cropped,
    stored_picture,
    verify,
)
from thumbtune.errors import UserError
from thumbtune.learning.evaluation import Embeddings, unit_vectors
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.store.workspace import Table, Workspace, checksum
from thumbtune.text.titles import is_blank
from thumbtune.use.matching import (
    Matcher,
    TitleError,
    counted,
    picture_bytes,
    pictures_gone,
    unreadable,
)

EXACT_BELOW = 100_000  # pictures
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 32, 128, 384
"""Of the graph: HNSW's M and ef. One built by 64 takes two thirds of the time, and misses twice as
many of the nearest to a title."""
WORDS_EXPANSION = 1536
"""Of a search by words: titles lie apart from all pictures, where a graph has it harder."""
CANDIDATES = 128  # that the graph finds, at least, for the float32 vectors to rank
CELLS = 32_000_000  # cosines held at a time
SAVED_EVERY = 1024  # new pictures; what a killed run may lose
MEASURED = 200  # queries on which the graph is held against the exact search

SEARCHING = Lock()
"""A graph has one expansion for all its searches."""

Numbers = NDArray[np.int64]


class Entry(BaseModel):
    """A picture of a library. A row of `Example` can be read as one."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    image: str
    """Relative to the workspace, or absolute for a picture outside of it."""
    crop: tuple[int, int, int, int] | None = None
    digest: str = ""
    """SHA-256 of the picture; empty if its file is named by it."""
    version: str = ""
    """Size and time of a file outside the workspace; if they are the same, so is the picture."""
    as_of: AwareDatetime | None = None
    """When the channel had this title and picture; None in a folder and in an old index."""

    @property
    def shown(self) -> tuple[Hashable, ...]:
        """What there is to see of it."""
        return self.id, self.title, self.image, self.crop

    @property
    def key(self) -> str:
        """What its embedding and its feature are found by."""
        return picture_key(self.digest or PurePosixPath(self.image).stem, self.crop)

    def file(self, workspace: Workspace) -> Path:
        """Where the picture is; only one of a library outside leads out of the workspace."""
        return Path(self.image) if self.digest else workspace.place(self.image)

    @property
    def number(self) -> int:
        """What it is found by in the index: 63 bits of a hash of id and picture."""
        return xxhash.xxh3_64_intdigest(f"{self.id} {self.key}".encode()) >> 1


class Hit(BaseModel):
    """A picture that was found."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    image: str
    """Absolute path."""
    cosine: float


class Hits(list[Hit]):
    """Pictures that were found, best first.

    Attributes:
        left_out: what became of nearer ones since they were indexed → how many.
    """

    def __init__(self, hits: Iterable[Hit], left_out: Mapping[str, int]) -> None:
        super().__init__(hits)
        self.left_out = dict(left_out)


class Indexed(BaseModel):
    """What became of an index."""

    model_config = ConfigDict(frozen=True)

    folder: str
    """Relative to the workspace."""
    pictures: int
    added: int
    removed: int
    dropped: dict[str, int] = {}
    """Reason → number of pictures that cannot be used."""
    recall_at_10: float | None = None
    """Of the approximate search against the exact one, by titles; None if the search is exact."""


class LibraryError(UserError, ValueError):
    """A folder holds no picture to index, or an index none that is still there."""


class NoIndexError(UserError, ValueError):
    """A library was not indexed for this model, or its index is damaged."""


def exact_search(vectors: Embeddings, queries: Embeddings, top: int) -> tuple[Numbers, Embeddings]:
    """The vectors of the highest cosine with each query, best first; of equals the first row.

    Args:
        vectors: unit vectors, shape (rows, dimensions).
        queries: unit vectors, shape (queries, dimensions).

    Returns:
        Rows and cosines, each of shape (queries, min(top, rows)).
    """
    top = min(top, len(vectors))
    at_once = max(1, CELLS // len(vectors))
    parts = [
        _best(queries[start : start + at_once] @ vectors.T, top)
        for start in range(0, len(queries), at_once)
    ]
    rows, cosines = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, cosines


def _best(cosines: Embeddings, top: int) -> tuple[Numbers, Embeddings]:
    """The highest of each line of a matrix, best first."""
    rows = np.argpartition(cosines, cosines.shape[1] - top, axis=1)[:, -top:].astype(np.int64)
    found = np.take_along_axis(cosines, rows, axis=1)
    order = np.lexsort((rows, -found), axis=1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)


class Vectors(NamedTuple):
    """Unit vectors in the order of their numbers, and the graph that finds the nearest."""

    numbers: Numbers
    """Ascending, shape (rows,)."""
    matrix: Embeddings
    """Shape (rows, dimensions)."""
    graph: Graph | None
    """None where the search is exact."""

    def search(
        self, queries: Embeddings, top: int, by_words: bool = False
    ) -> tuple[Numbers, Embeddings]:
        """The nearest rows and their cosines, best first, each of shape (queries, top).

        There are fewer than `top` if the library has fewer.

        Args:
            by_words: whether the queries are titles; a graph is searched more widely for them.
        """
        if self.graph is None:
            return exact_search(self.matrix, queries, top)
        top = min(top, len(self.matrix))
        wanted = min(max(CANDIDATES, 4 * top), len(self.matrix))
        with SEARCHING:
            expansion = WORDS_EXPANSION if by_words else EXPANSION_SEARCH
            self.graph.expansion_search = expansion  # type: ignore[misc]  # mypy misses its setter
            found = self.graph.search(queries, wanted, threads=1 if len(queries) == 1 else 0)
        keys = np.atleast_2d(found.keys).astype(np.int64)
        rows = np.minimum(np.searchsorted(self.numbers, keys), len(self.numbers) - 1)
        cosines = np.einsum("qcd,qd->qc", self.matrix[rows], queries)
        cosines[self.numbers[rows] != keys] = -np.inf  # the graph found fewer for this query
        best, cosines = _best(cosines, min(top, keys.shape[1]))
        return np.take_along_axis(rows, best, axis=1), cosines

    def recall_at_10(self, queries: Embeddings, by_words: bool = False) -> float:
        """Share of the ten nearest that the graph finds; see `search`."""
        exact, _ = exact_search(self.matrix, queries, 10)
        found, _ = self.search(queries, 10, by_words)
        pairs = zip(exact, found, strict=True)
        return float(np.mean([np.isin(right, rows).mean() for right, rows in pairs]))


def with_graph(numbers: Numbers, matrix: Embeddings, graph: Graph | None) -> Vectors:
    """Vectors that are searched by a graph.

    Args:
        graph: of earlier vectors; what is new is added to it and what is gone leaves it.
    """
    if graph is None:
        graph = Graph(
            ndim=matrix.shape[1],
            metric="cos",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )
    there = np.asarray(graph.keys[:]).astype(np.int64)
    if len(gone := np.setdiff1d(there, numbers)):
        graph.remove(gone.astype(np.uint64))
    new = ~np.isin(numbers, there)
    if new.any():
        graph.add(numbers[new].astype(np.uint64), matrix[new])
    return Vectors(numbers, matrix, graph)


class _Files(BaseModel):
    """index.json: the files of an index, each named by its checksum."""

    model_config = ConfigDict(frozen=True)

    entries: str
    vectors: str
    graph: str | None = None
    recall_at_10: float | None = None


class ThumbnailIndex:
    """The indexed pictures of one library, as one model sees them."""

    def __init__(self, workspace: Workspace, lines: list[bytes], vectors: Vectors, files: _Files):
        self.workspace = workspace
        self.lines = lines
        self.vectors = vectors
        self.files = files

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def entries(self) -> list[Entry]:
        """All pictures, in the order of their numbers."""
        return [Entry.model_validate_json(line) for line in self.lines]

    def entry(self, video_id: str) -> Entry | None:
        """A video's picture; None if it is not indexed."""
        return self._by_id.get(video_id)

    @cached_property
    def _by_id(self) -> dict[str, Entry]:
        return {entry.id: entry for entry in self.entries}

    def search(self, query: Embeddings, top: int = 12, by_words: bool = False) -> Hits:
        """The pictures nearest to a unit vector of the same model, best first.

        Those that are gone or were changed since they were indexed are left out, and counted.

        Raises:
            LibraryError: that holds for all of them.
        """
        hits: list[Hit] = []
        left_out: Counter[str] = Counter()
        for entry, cosine in self._nearest(query.reshape(1, -1), top, by_words):
            if state := self._state(entry):
                left_out[state] += 1
                continue
            image = str(entry.file(self.workspace))
            hits.append(Hit(id=entry.id, title=entry.title, image=image, cosine=cosine))
            if len(hits) == top:
                break
        if not hits:
            raise self._nothing_left(left_out)
        return Hits(hits, left_out)

    def _nearest(
        self, query: Embeddings, top: int, by_words: bool
    ) -> Iterator[tuple[Entry, float]]:
        """The nearest pictures, each once: `top` of them are found at once, the others if need be.

        Args:
            query: shape (1, dimensions).
        """
        given: set[int] = set()
        for search, count in (
            (partial(self.vectors.search, by_words=by_words), top),
            (partial(exact_search, self.vectors.matrix), len(self)),
        ):
            [rows], [cosines] = search(query, count)
            for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
                if row not in given and cosine > -np.inf:  # of the graph's: it found fewer
                    yield Entry.model_validate_json(self.lines[row]), cosine
            given = set(rows.tolist())

    def _state(self, entry: Entry) -> str:
        """What became of a picture since it was indexed; empty if it is as it was."""
        try:
            file = entry.file(self.workspace)
            if not file.is_file():
                return "gone"
            if not entry.digest or file_version(file) == entry.version:
                return ""
            same = hashlib.sha256(picture_bytes(file)).hexdigest() == entry.digest
        except OSError:
            return "gone"
        except BadThumbnailError:  # it has become too large
            return "changed"
        return "" if same else "changed"

    def _nothing_left(self, left_out: Mapping[str, int]) -> LibraryError:
        first = Entry.model_validate_json(self.lines[0]).image
        return LibraryError(
            f"None of the {len(self)} indexed pictures is as it was ({counted(left_out)}), such as "
            f"{first}. If their folder was moved or is not mounted, bring it back; `thumbtune "
            "index` with the folder as it is now makes the index anew."
        )


def search_words(index: ThumbnailIndex, matcher: Matcher, words: str, top: int = 12) -> Hits:
    """The pictures that fit an idea best.

    Raises:
        TitleError: there are no words.
    """
    if is_blank(words):
        raise TitleError("words: there are none. Say what the picture should show.")
    return index.search(matcher.embed_titles([words])[0], top, by_words=True)


def search_picture(
    index: ThumbnailIndex, matcher: Matcher, picture: Image.Image, top: int = 12
) -> Hits:
    """The pictures most like one."""
    return index.search(matcher.embed_images([picture])[0], top)


def channel_place(fingerprint: str, version: Version) -> str:
    """Where in the workspace the index of a version's channel lies for a model."""
    name = registry_name(version.parameters.source, version.parameters.channel)
    return f"indexes/{fingerprint[:16]}/channels/{name}"


def folder_place(fingerprint: str, folder: Path) -> str:
    """Where in the workspace the index of a folder lies for a model."""
    name = registry_name("folder", str(folder.expanduser().resolve()))
    return f"indexes/{fingerprint[:16]}/folders/{name}"


def open_index(workspace: Workspace, place: str) -> ThumbnailIndex:
    """Open an index.

    Args:
        place: relative to the workspace.

    Raises:
        NoIndexError: there is none, or it is damaged.
    """
    if index := _read(workspace, place):
        return index
    raise NoIndexError(
        f"There is no index {workspace}/{place} for this model, or it is damaged. Make it with "
        "`thumbtune index` for a channel, `thumbtune index FOLDER` for a folder."
    )


def index_channel(
    workspace: Workspace, version: Version, matcher: Matcher, newer: Sequence[Entry] = ()
) -> Indexed:
    """Bring the index of a version's channel up to date; only pictures not yet there are embedded.

    Args:
        newer: pictures and titles as the channel has them now, such as those of new videos. They
            stay in the index.

    Raises:
        NoModelError: the version's examples are gone.
        LibraryError: all pictures are.
    """

    def listed(
        known: Sequence[Entry], damaged: frozenset[str] = frozenset()
    ) -> tuple[list[Entry], dict[str, int]]:
        of_version = _dated(workspace.read_table(version.examples, Entry), version.created)
        entries = [*known, *of_version, *_dated(newer, datetime.now(UTC))]
        missing = workspace.missing({entry.image for entry in entries})
        there = newest([e for e in entries if e.image not in missing | damaged])
        lacking = {entry.id: entry.image for entry in entries}
        for entry in there:
            del lacking[entry.id]
        if lacking and not there:
            raise LibraryError(
                pictures_gone(workspace, f"{len(lacking)} thumbnails of the channel")
            )
        reasons = ("picture damaged" if i in damaged else "picture gone" for i in lacking.values())
        return there, dict(Counter(reasons))

    place = channel_place(matcher.fingerprint, version)
    try:
        return _update(workspace, matcher, place, listed)
    except BadThumbnailError:  # to look at all of them takes as long as to encode them
        damaged = _damaged(workspace, version, newer)
        return _update(workspace, matcher, place, partial(listed, damaged=damaged))


def _damaged(workspace: Workspace, version: Version, newer: Sequence[Entry]) -> frozenset[str]:
    entries = [*workspace.read_table(version.examples, Entry), *newer]
    images = {entry.image for entry in entries}
    return frozenset(i for i in images if unreadable(workspace, i) == "picture damaged")


def _dated(entries: Iterable[Entry], as_of: datetime) -> list[Entry]:
    return [entry.model_copy(update={"as_of": as_of}) for entry in entries]


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """Of each video the title and picture that it had last; one that did not change is as it was.

    An older version of the model, or another's run, brings back no title that was changed since.
    """
    first: dict[str, Entry] = {}
    last: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.id, entry)
        if _time(entry) > _time(last.setdefault(entry.id, entry)):
            last[entry.id] = entry
    return [_unchanged(first[id_], entry) or entry for id_, entry in last.items()]


def _unchanged(before: Entry, now: Entry) -> Entry | None:
    return before if before.as_of and before.shown == now.shown else None


def _time(entry: Entry) -> datetime:
    return entry.as_of or datetime.min.replace(tzinfo=UTC)


def index_folder(workspace: Workspace, folder: Path, matcher: Matcher) -> Indexed:
    """Bring the index of a folder's pictures up to date.

    Titles are those of the manifest or of yt-dlp's files if the folder is a channel, else the
    names of the pictures, which may lie anywhere below it.

    Raises:
        LibraryError: there is no such folder, or no picture in it that can be used.
        SourceError: its manifest is wrong.
    """
    folder = folder.expanduser().resolve()

    def listed(known: Sequence[Entry]) -> tuple[list[Entry], dict[str, int]]:
        earlier = {entry.image: entry for entry in known}
        return list_pictures(folder, earlier, matcher.thumbnails)

    return _update(workspace, matcher, folder_place(matcher.fingerprint, folder), listed)


def list_pictures(
    folder: Path, earlier: Mapping[str, Entry], parameters: ThumbnailsParameters
) -> tuple[list[Entry], dict[str, int]]:
    """The pictures of a folder; those whose size and time are as they were are not read again.

    Args:
        earlier: path → how it was listed before.

    Returns:
        The entries, and reason → number of pictures that cannot be used.
    """
    entries: list[Entry] = []
    titled, dropped = _titled(folder)
    for id_, title, file in tqdm(titled, desc="Reading pictures"):
        known = earlier.get(str(file))
        if known and known.version == file_version(file):
            entries.append(known.model_copy(update={"id": id_, "title": title}))
            continue
        try:
            entries.append(_entry(id_, title, file, parameters))
        except OSError:
            dropped["file missing or unreadable"] += 1
        except BadThumbnailError as error:
            dropped[str(error)] += 1
    if not entries:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise LibraryError(
            f"folder: {folder} has no JPEG, PNG, WebP or GIF picture to index"
            + (f" ({reasons})." if reasons else ".")
        )
    return entries, dict(dropped)


def _titled(folder: Path) -> tuple[list[tuple[str, str, Path]], Counter[str]]:
    """Id, title and file of each picture, and reason → number of those that are left out."""
    if not folder.is_dir():
        raise LibraryError(f"folder: there is no folder {folder}. Give an existing one.")
    if is_channel(folder):
        videos, dropped = list_folder(folder)
        local = [(v.id, v.title, Path(v.thumbnails["file"])) for v in videos if is_local(v)]
        return local, dropped + Counter({"URL, no file of the folder": len(videos) - len(local)})
    names = [name for name in files_below(folder) if name.lower().endswith(ENDINGS)]
    pictures = [(name, Path(name).stem, folder / name) for name in names if is_unicode(name)]
    return pictures, +Counter({"file name that is not UTF-8": len(names) - len(pictures)})


def _entry(id_: str, title: str, file: Path, parameters: ThumbnailsParameters) -> Entry:
    version = file_version(file)
    data = picture_bytes(file)
    image = verify(data, parameters.max_megapixels)
    crop = letterbox(image) if parameters.crop_letterbox else None
    digest = hashlib.sha256(data).hexdigest()
    return Entry(id=id_, title=title, image=str(file), crop=crop, digest=digest, version=version)


def _update(
    workspace: Workspace,
    matcher: Matcher,
    place: str,
    listed: Callable[[Sequence[Entry]], tuple[list[Entry], dict[str, int]]],
) -> Indexed:
    """Make an index hold what is listed; one process of a machine at a time."""
    with workspace.lock(f"{place}/update.lock"):
        old = _read(workspace, place)
        entries, dropped = listed(old.entries if old else [])
        entries = sorted({e.number: e for e in entries}.values(), key=lambda e: e.number)
        before = {entry.number for entry in old.entries} if old else set()
        now = {entry.number for entry in entries}
        if old is None or old.entries != entries:
            known = _known(old)
            _embed_missing(workspace, matcher, place, entries, known)
            old = _write(workspace, matcher, place, entries, known, old)
        return Indexed(
            folder=place,
            pictures=len(entries),
            added=len(now - before),
            removed=len(before - now),
            dropped=dropped,
            recall_at_10=old.files.recall_at_10,
        )


def _known(old: ThumbnailIndex | None) -> dict[str, Embeddings]:
    """Key → vector of the pictures that were indexed before."""
    if old is None:
        return {}
    return {entry.key: row for entry, row in zip(old.entries, old.vectors.matrix, strict=True)}


def _embed_missing(
    workspace: Workspace,
    matcher: Matcher,
    place: str,
    entries: Sequence[Entry],
    known: dict[str, Embeddings],
) -> None:
    """Add the vectors that are missing to `known`, and save on the way."""
    missing = list({e.key: e for e in entries if e.key not in known}.values())
    for start in range(0, len(missing), SAVED_EVERY):
        some = missing[start : start + SAVED_EVERY]
        known |= zip((entry.key for entry in some), _embed(workspace, matcher, some), strict=True)
        if start + SAVED_EVERY < len(missing):
            so_far = [entry for entry in entries if entry.key in known]
            vectors = Vectors(*_matrix(so_far, known), graph=None)
            _save(workspace, place, so_far, vectors, None)


def _embed(workspace: Workspace, matcher: Matcher, entries: Sequence[Entry]) -> Embeddings:
    """Unit vectors of pictures, through the stored features if the image tower is frozen.

    A tower that trains in part keeps long features, worth it for the channel's pictures alone.
    """

    def load(entry: Entry, least: int | None = None) -> Image.Image:
        if not entry.digest:
            stored_picture(workspace, entry.image)
        return load_cropped(entry.file(workspace), entry.crop, least)

    foreign = any(entry.digest for entry in entries)
    if not foreign or pools_once(matcher.model, "image"):
        inputs = {"image": {e.key: partial(load, e) for e in entries}, "text": {}}
        pictures = list(inputs["image"].values())
        reader, _ = head_on(workspace, matcher.model, inputs, matcher.precision, pictures)
        if reads_features(reader):
            return unit_vectors(reader, [entry.key for entry in entries], 1024)
    parts = []
    for start in tqdm(range(0, len(entries), 32), desc="Embedding pictures, 32 at a time"):
        parts.append(matcher.embed_images([load(entry) for entry in entries[start : start + 32]]))
    return np.concatenate(parts)


def _matrix(
    entries: Sequence[Entry], known: Mapping[str, Embeddings]
) -> tuple[Numbers, Embeddings]:
    numbers = np.array([entry.number for entry in entries], np.int64)
    return numbers, np.stack([known[entry.key] for entry in entries])


def _write(
    workspace: Workspace,
    matcher: Matcher,
    place: str,
    entries: Sequence[Entry],
    known: Mapping[str, Embeddings],
    old: ThumbnailIndex | None,
) -> ThumbnailIndex:
    numbers, matrix = _matrix(entries, known)
    vectors, recall = Vectors(numbers, matrix, None), None
    if len(entries) >= EXACT_BELOW:
        graph = None
        if old and old.files.graph:
            graph = _read_graph(workspace.place(f"{place}/{old.files.graph}"))
        vectors = with_graph(numbers, matrix, graph)
        titles = sorted({entry.title for entry in entries if entry.title.strip()})
        chosen = titles[:: max(1, len(titles) // MEASURED)] or ["thumbnail"]
        recall = vectors.recall_at_10(matcher.embed_titles(chosen), by_words=True)
    files = _save(workspace, place, entries, vectors, recall)
    lines = [entry.model_dump_json().encode() for entry in entries]
    return ThumbnailIndex(workspace, lines, vectors, files)


def _save(
    workspace: Workspace,
    place: str,
    entries: Sequence[Entry],
    vectors: Vectors,
    recall: float | None,
) -> _Files:
    """Put an index in its place: the old one stays until index.json names the new files."""
    data = b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)
    tensors = {
        "numbers": torch.from_numpy(vectors.numbers),
        "vectors": torch.from_numpy(vectors.matrix),
    }
    files = _Files(
        entries=_keep(workspace, place, ".jsonl", lambda file: file.write_bytes(data)),
        vectors=_keep(workspace, place, ".safetensors", lambda file: save_file(tensors, file)),
        graph=_keep(workspace, place, ".usearch", vectors.graph.save) if vectors.graph else None,
        recall_at_10=recall,
    )
    pointer = files.model_dump_json().encode()
    workspace.write(f"{place}/index.json", pointer)
    if workspace.read(f"{place}/index.json") == pointer:  # no other machine's by now
        _clear(workspace, place, files)
    return files


def _clear(workspace: Workspace, place: str, files: _Files) -> None:
    """Remove what index.json does not name, left-overs of a killed run too."""
    named = {"index.json", "update.lock", files.entries, files.vectors, files.graph}
    here = [file.name for file in (workspace.root / place).iterdir()]
    for name in {*workspace.names(place), *here} - named:
        with contextlib.suppress(OSError):
            workspace.remove(f"{place}/{name}")


def _keep(workspace: Workspace, place: str, ending: str, write: Callable[[Path], object]) -> str:
    """Write a file whole, and name it by its checksum."""
    temporary = workspace.root / place / f".{uuid.uuid4().hex}{ending}"
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(usual)  # safetensors makes it private
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        name = f"{_checksum(temporary)}{ending}"
        workspace.put(f"{place}/{name}", temporary)
    finally:
        temporary.unlink(missing_ok=True)
    return name


def _checksum(file: Path) -> str:
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        return checksum(view)


def _read(workspace: Workspace, place: str) -> ThumbnailIndex | None:
    """The index in a folder; None if there is none or it is damaged."""
    while True:
        try:
            pointer = workspace.read(f"{place}/index.json")
        except OSError:
            return None
        try:
            files = _Files.model_validate_json(pointer)
            index = _load(workspace, place, files)
            _forget_others(workspace, place, files)
            return index
        except (OSError, ValueError, SafetensorError, RuntimeError):
            with contextlib.suppress(OSError):
                if workspace.read(f"{place}/index.json") != pointer:
                    continue  # it was replaced meanwhile
            return None


def _forget_others(workspace: Workspace, place: str, files: _Files) -> None:
    """Let a mirror keep no older files of an index; other machines may write it, this one read."""
    for ending in (".jsonl", ".safetensors", ".usearch"):
        for file in (workspace.root / place).glob(f"[!.]*{ending}"):
            if file.name not in (files.entries, files.vectors, files.graph):
                workspace.forget(f"{place}/{file.name}")


def _load(workspace: Workspace, place: str, files: _Files) -> ThumbnailIndex:
    """Open the files; the vectors and the graph are mapped, not read into memory.

    Raises:
        OSError, ValueError, SafetensorError, RuntimeError: a file is gone or damaged.
    """
    names = [files.entries, files.vectors, *([files.graph] if files.graph else [])]
    places = [_intact(workspace, f"{place}/{name}") for name in names]
    with safe_open(places[1], framework="pt") as stored:
        numbers, matrix = (stored.get_tensor(name).numpy() for name in ("numbers", "vectors"))
    graph = _read_graph(places[2], view=True) if files.graph else None
    lines = places[0].read_bytes().splitlines()
    if not len(lines) == len(numbers) == len(matrix):
        raise ValueError("rows")
    return ThumbnailIndex(workspace, lines, Vectors(numbers, matrix, graph), files)


def _intact(workspace: Workspace, path: str) -> Path:
    """A file that is as it was when it was named by its checksum; ValueError if there is none."""
    if not workspace.passes(path, lambda file: _checksum(file) == file.stem):
        raise ValueError("checksum")
    return workspace.place(path)


def _read_graph(file: Path, view: bool = False) -> Graph:
    graph = Graph.restore(
        file,
        view=view,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )
    if graph is None:
        raise ValueError("no graph")
    return graph


def entries_of(workspace: Workspace, videos: Table, batches: Sequence[ThumbnailBatch]) -> Table:
    """Join a table of `Video` with the fetched thumbnails: a table of `Entry`."""
    found = {thumbnail.video_id: thumbnail for batch in batches for thumbnail in batch.thumbnails}
    entries = [
        Entry(id=video.id, title=video.title, image=thumbnail.image, crop=thumbnail.crop)
        for video in workspace.read_table(videos, Video)
        if (thumbnail := found[video.id]).image
    ]
    return workspace.write_table("entries", entries)
