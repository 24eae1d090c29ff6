"""The index of a thumbnail library: what it finds, what it costs to keep up to date, and damage."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sentence_transformers import SentenceTransformer

from tests.data.test_thumbnails import encoded, picture
from tests.forks import FORKS
from tests.small_channel import add_version
from thumbtune.channel.registry import Version
from thumbtune.channel.sources.folder.listing import file_version
from thumbtune.clip.models import load_model
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.sample import CHANNEL, MODEL
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.index_thumbnails import index_thumbnails
from thumbtune.use import indexing
from thumbtune.use.indexing import (
    Entry,
    LibraryError,
    NoIndexError,
    ThumbnailIndex,
    Vectors,
    _Files,
    channel_place,
    exact_search,
    folder_place,
    index_channel,
    index_folder,
    newest,
    open_index,
    search_picture,
    search_words,
    with_graph,
)
from thumbtune.use.matching import Matcher, TitleError, examples_of


def unit_vectors(rows: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Five pictures in nested folders, one with a letterbox, and two files that are no pictures."""
    folder = tmp_path / "library"
    (folder / "deep" / "er").mkdir(parents=True)
    for n, name in enumerate(["a.jpg", "deep/b.JPG", "deep/er/c.jpg", "d.jpeg"]):
        (folder / name).write_bytes(encoded(picture(seed=n, bars=45 if n == 3 else 0)))
    (folder / "e.png").write_bytes(encoded(picture(seed=9), "PNG"))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


@given(
    rows=st.integers(1, 60),
    queries=st.integers(1, 5),
    top=st.integers(1, 80),
    seed=st.integers(0, 2**32 - 1),
    copies=st.booleans(),
)
def test_the_exact_search_is_numpys(
    rows: int, queries: int, top: int, seed: int, copies: bool
) -> None:
    vectors, asked = unit_vectors(rows, 8, seed), unit_vectors(queries, 8, seed + 1)
    if copies:  # equal vectors: the first row comes first
        vectors = vectors[np.random.default_rng(seed).integers(0, rows, rows)]
    found, cosines = exact_search(vectors, asked, top)
    expected = asked @ vectors.T
    order = np.argsort(-expected, axis=1, kind="stable")[:, :top]
    assert np.array_equal(cosines, np.take_along_axis(expected, order, axis=1))
    assert np.array_equal(np.take_along_axis(expected, found, axis=1), cosines)
    assert all(len(set(row)) == min(top, rows) for row in found.tolist())


@pytest.mark.compatibility
def test_the_graph_finds_what_the_exact_search_finds_and_ranks_it_by_float32() -> None:
    matrix, queries = unit_vectors(3000, 32), unit_vectors(50, 32, seed=1)
    vectors = with_graph(np.arange(3000), matrix, None)
    found, cosines = vectors.search(queries, 10)
    assert cosines == pytest.approx(np.take_along_axis(queries @ matrix.T, found, axis=1), abs=1e-6)
    assert (np.diff(cosines, axis=1) <= 0).all()
    exact, _ = exact_search(matrix, queries, 10)
    hits = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])
    assert vectors.recall_at_10(queries) == pytest.approx(hits)
    assert hits > 0.95  # threads build the graph, each time in another order


def test_words_are_looked_for_more_widely_than_pictures() -> None:
    matrix, queries = unit_vectors(4000, 64), unit_vectors(20, 64, seed=1)
    vectors = with_graph(np.arange(4000), matrix, None)
    assert vectors.graph is not None
    visited = []
    for by_words in (True, False, True):
        vectors.search(queries, 10, by_words)
        visited.append(vectors.graph.search(queries, 10).visited_members)
    assert visited[0] > 1.5 * visited[1]
    assert visited[2] > 1.5 * visited[1]
    assert vectors.recall_at_10(queries, by_words=True) >= vectors.recall_at_10(queries)


@pytest.mark.compatibility
def test_a_graph_takes_new_vectors_and_forgets_those_that_are_gone() -> None:
    matrix = unit_vectors(2000, 32)
    numbers = np.sort(np.random.default_rng(0).choice(2**62, 2000, replace=False))
    early = with_graph(numbers[:1500], matrix[:1500], None)
    now = with_graph(numbers[500:], matrix[500:], early.graph)
    assert now.graph is not None
    assert sorted(now.graph.keys) == numbers[500:].tolist()
    found, _ = now.search(matrix, 1)
    assert (found[500:, 0] == np.arange(1500)).mean() > 0.99
    assert now.recall_at_10(matrix[:100]) > 0.95


def files(workspace: Workspace) -> dict[Path, int]:
    """What is in the features and indexes, by inode: a file that is written is a new one."""
    found = [
        *workspace.root.glob("features/*/*.safetensors"),
        *workspace.root.glob("indexes/*/*/*/*"),
    ]
    return {file: file.stat().st_ino for file in found}


@pytest.mark.slow
def test_a_channels_index_ranks_as_the_plain_model_and_runs_no_tower_again(
    workspace: Workspace, version: Version, matcher: Matcher
) -> None:
    examples = examples_of(workspace, version)
    towers = {file for file in files(workspace) if "features" in file.parts}
    done = index_channel(workspace, version, matcher)
    assert (done.pictures, done.added, done.removed, done.recall_at_10) == (40, 40, 0, None)
    assert {file for file in files(workspace) if "features" in file.parts} == towers

    model = load_model(version.model, workspace)
    images = model.encode(
        [load_image(workspace, example) for example in examples], normalize_embeddings=True
    )
    index = open_index(workspace, channel_place(matcher.fingerprint, version))
    words = "a castle in the snow"
    cosines = images @ model.encode(words, normalize_embeddings=True)
    hits = search_words(index, matcher, words, top=5)
    best = np.argsort(-cosines)[:5]
    assert [hit.id for hit in hits] == [examples[row].id for row in best]
    assert [hit.cosine for hit in hits] == pytest.approx(cosines[best].tolist(), abs=1e-5)
    for hit, row in zip(hits, best, strict=True):
        assert Path(hit.image) == workspace.root / examples[row].image
        assert hit.title == examples[row].title

    [same, *others] = search_picture(index, matcher, load_image(workspace, examples[7]), top=99)
    assert (same.id, same.cosine) == (examples[7].id, pytest.approx(1, abs=1e-5))
    assert len(others) == 39


def test_an_index_that_is_up_to_date_is_not_written(
    workspace: Workspace, version: Version, matcher: Matcher
) -> None:
    index_channel(workspace, version, matcher)
    before = files(workspace)
    again = index_channel(workspace, version, matcher)
    assert (again.pictures, again.added, again.removed) == (40, 0, 0)
    assert files(workspace) == before


@pytest.mark.slow
def test_new_pictures_join_and_stay_until_their_file_is_gone(
    workspace: Workspace, version: Version, matcher: Matcher
) -> None:
    index_channel(workspace, version, matcher)
    workspace.write_file("thumbnails/new.jpg", encoded(picture()))
    new = Entry(id="new", title="A new video", image="thumbnails/new.jpg")
    assert index_channel(workspace, version, matcher, [new]).added == 1
    again = index_channel(workspace, version, matcher)
    assert (again.pictures, again.removed) == (41, 0)
    (workspace.root / "thumbnails/new.jpg").unlink()
    gone = index_channel(workspace, version, matcher)
    assert (gone.pictures, gone.removed, gone.dropped) == (40, 1, {"picture gone": 1})


@pytest.mark.usefixtures("prefect_harness")
def test_the_newest_title_of_a_video_stays_whichever_version_is_searched_by(
    workspace: Workspace, version: Version, matcher: Matcher
) -> None:
    first, second, *others = examples_of(workspace, version)
    place = channel_place(matcher.fingerprint, version)

    def titles() -> tuple[str, ...]:
        found = {entry.id: entry.title for entry in open_index(workspace, place).entries}
        return found[first.id], found[second.id]

    def renamed(example: Example, title: str) -> Example:
        return example.model_copy(update={"title": title})

    index_channel(workspace, version, matcher)
    changed = workspace.write_table("entries", [renamed(first, "Seen later"), *others])
    assert index_thumbnails(workspace, version, changed) == 40
    index_channel(workspace, version, matcher)
    assert titles() == ("Seen later", second.title)

    rows = [renamed(first, "Seen last"), renamed(second, "Renamed"), *others]
    update = {"created": datetime.now(UTC), "examples": workspace.write_table("examples", rows)}
    index_channel(workspace, version.model_copy(update=update), matcher)
    assert titles() == ("Seen last", "Renamed")
    index_channel(workspace, version, matcher)  # as after a rollback
    assert titles() == ("Seen last", "Renamed")


@pytest.mark.slow
def test_a_video_whose_newest_picture_is_gone_is_found_by_the_one_before(
    workspace: Workspace, version: Version, matcher: Matcher
) -> None:
    [first, *_] = examples_of(workspace, version)
    workspace.write_file("thumbnails/new.jpg", encoded(picture()))
    new = Entry(id=first.id, title="New", image="thumbnails/new.jpg")
    assert index_channel(workspace, version, matcher, [new]).pictures == 40
    (workspace.root / "thumbnails/new.jpg").unlink()
    again = index_channel(workspace, version, matcher)
    assert (again.pictures, again.added, again.dropped) == (40, 1, {})


ENTRIES = st.builds(
    Entry,
    id=st.sampled_from("ab"),
    title=st.sampled_from("xyz"),
    image=st.just("i"),
    as_of=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(st.lists(ENTRIES))
def test_of_each_video_the_newest_title_is_kept_in_any_order(entries: list[Entry]) -> None:
    found = {entry.id: entry for entry in newest(entries)}
    assert found.keys() == {entry.id for entry in entries}
    for id_, entry in found.items():
        times = [e.as_of for e in entries if e.id == id_ and e.title != entry.title and e.as_of]
        last = [e.as_of for e in entries if e.id == id_ and e.title == entry.title and e.as_of]
        assert not times or (last and max(times) <= max(last))


@pytest.mark.slow
def test_a_folder_is_searched_by_the_names_of_its_pictures(
    workspace: Workspace, matcher: Matcher, library: Path
) -> None:
    done = index_folder(workspace, library, matcher)
    assert (done.pictures, done.dropped) == (5, {"not a JPEG, PNG, WebP or GIF picture": 1})
    index = open_index(workspace, folder_place(matcher.fingerprint, library))
    assert {(entry.id, entry.title) for entry in index.entries} == {
        ("a.jpg", "a"),
        ("deep/b.JPG", "b"),
        ("deep/er/c.jpg", "c"),
        ("d.jpeg", "d"),
        ("e.png", "e"),
    }
    assert {entry.id for entry in index.entries if entry.crop} == {"d.jpeg"}  # its letterbox
    for id_ in ("d.jpeg", "e.png"):
        hit = search_picture(index, matcher, matcher.read_picture(library / id_), top=1)[0]
        assert (hit.id, hit.image) == (id_, str(library / id_))
        assert hit.cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_folder_that_is_a_channel_has_the_titles_of_its_manifest(
    workspace: Workspace, matcher: Matcher, tmp_path: Path
) -> None:
    folder = tmp_path / "channel"
    rows = json.loads((CHANNEL / "manifest.json").read_text())[:6]
    for row in rows:
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHANNEL / row["image"], folder / row["image"])
    (folder / "manifest.json").write_text(json.dumps(rows))
    index_folder(workspace, folder, matcher)
    index = open_index(workspace, folder_place(matcher.fingerprint, folder))
    assert {entry.id: entry.title for entry in index.entries} == {
        row["id"]: row["title"] for row in rows
    }


@pytest.mark.slow
def test_pictures_that_are_gone_or_changed_are_left_out_and_counted(
    workspace: Workspace, matcher: Matcher, library: Path
) -> None:
    index_folder(workspace, library, matcher)
    index = open_index(workspace, folder_place(matcher.fingerprint, library))
    wanted = matcher.read_picture(library / "e.png")
    order = [hit.id for hit in search_picture(index, matcher, wanted)]
    first, second, third, fourth, fifth = order
    (library / first).unlink()
    (library / second).write_bytes(encoded(picture(seed=20)))
    os.utime(library / third, (0, 0))  # touched, but the same picture

    hits = search_picture(index, matcher, wanted, top=2)
    assert [hit.id for hit in hits] == [third, fourth]
    assert hits.left_out == {"gone": 1, "changed": 1}
    assert [hit.id for hit in search_picture(index, matcher, wanted)] == [third, fourth, fifth]

    library.rename(library.with_name("moved"))
    with pytest.raises(
        LibraryError, match=r"None of the 5 .* \(5 gone\), such as .*`thumbtune ind"
    ):
        search_words(index, matcher, "a red car")


@pytest.mark.slow
@given(gone=st.sets(st.integers(0, 39)), top=st.integers(1, 50), with_a_graph=st.booleans())
def test_as_many_as_asked_are_found_however_many_are_gone(
    tmp_path_factory: pytest.TempPathFactory, gone: set[int], top: int, with_a_graph: bool
) -> None:
    folder = tmp_path_factory.mktemp("library")
    entries = [
        Entry(id=str(n), title="", image=str(folder / str(n)), digest=str(n)) for n in range(40)
    ]
    entries.sort(key=lambda entry: entry.number)
    for n in set(range(40)) - gone:
        (folder / str(n)).touch()
    entries = [e.model_copy(update={"version": file_version(Path(e.image))}) for e in entries]
    vectors = Vectors(np.array([entry.number for entry in entries]), unit_vectors(40), None)
    if with_a_graph:
        vectors = with_graph(vectors.numbers, vectors.matrix, None)
    lines = [entry.model_dump_json().encode() for entry in entries]
    index = ThumbnailIndex(
        Workspace.open(folder / "w"), lines, vectors, _Files(entries="", vectors="")
    )
    query = unit_vectors(1, seed=1)[0]
    if len(gone) == 40:
        with pytest.raises(LibraryError, match="40 gone"):
            index.search(query, top)
        return
    hits = index.search(query, top)
    best = np.argsort(-(vectors.matrix @ query), kind="stable")
    there = [entries[row].id for row in best if int(entries[row].id) not in gone]
    assert [hit.id for hit in hits] == there[:top]
    before = [entries[row].id for row in best].index(hits[-1].id) if len(there) >= top else 40
    assert hits.left_out.get("gone", 0) == sum(
        int(entries[row].id) in gone for row in best[:before]
    )


@pytest.mark.slow
def test_what_a_folder_holds_of_other_types_is_counted_by_type(
    workspace: Workspace, matcher: Matcher, library: Path
) -> None:
    (library / "a.avif").write_bytes(encoded(picture(), "AVIF"))
    (library / "deep" / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (library / "c.tif").write_bytes(encoded(picture(), "TIFF"))
    (library / "d.svg").write_bytes(b"<svg/>")
    (library / "._a.jpg").write_bytes(b"of macOS")
    (library / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded(picture(seed=3)))
    no_picture = "not a JPEG, PNG, WebP or GIF picture"
    types = {f"{no_picture} but {kind}": 1 for kind in ("AVIF", "HEIC", "TIFF", "SVG")}
    types["file name that is not UTF-8"] = 1
    done = index_folder(workspace, library, matcher)
    assert (done.pictures, done.dropped) == (5, {no_picture: 1, **types})


@pytest.mark.slow
def test_what_a_channels_folder_lists_and_does_not_hold_is_counted(
    workspace: Workspace, matcher: Matcher, library: Path
) -> None:
    images = ["a.jpg", "https://i.ytimg.com/vi/a/hq.jpg", "gone.jpg", "E.PNG"]
    rows = [{"id": str(n), "title": "T", "image": image} for n, image in enumerate(images)]
    (library / "manifest.json").write_text(json.dumps(rows))
    done = index_folder(workspace, library, matcher)
    assert done.pictures == 2
    assert done.dropped == {"URL, no file of the folder": 1, "file missing or unreadable": 1}


@pytest.mark.slow
def test_only_new_and_changed_pictures_of_a_folder_are_read_and_embedded(
    workspace: Workspace, matcher: Matcher, library: Path
) -> None:
    index_folder(workspace, library, matcher)
    unread = library / "a.jpg"
    stamp = unread.stat()
    unread.write_bytes(bytes(stamp.st_size))  # of the same size and time: taken for unchanged
    os.utime(unread, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (library / "f.jpg").write_bytes(encoded(picture(seed=20)))
    (library / "e.png").write_bytes(encoded(picture(seed=21), "PNG"))
    (library / "d.jpeg").unlink()
    before = files(workspace)
    done = index_folder(workspace, library, matcher)
    assert (done.pictures, done.added, done.removed) == (5, 2, 2)
    index = open_index(workspace, folder_place(matcher.fingerprint, library))
    assert {entry.id for entry in index.entries} == {
        "a.jpg",
        "deep/b.JPG",
        "deep/er/c.jpg",
        "e.png",
        "f.jpg",
    }
    hit = search_picture(index, matcher, matcher.read_picture(library / "e.png"), top=1)[0]
    assert hit.id == "e.png"
    kept = {file: inode for file, inode in before.items() if "features" in file.parts}
    assert kept.items() <= files(workspace).items()


@pytest.mark.slow
def test_a_new_champion_of_the_same_towers_indexes_a_folder_without_running_them(
    workspace: Workspace, matcher: Matcher, library: Path
) -> None:
    index_folder(workspace, library, matcher)
    towers = {k: v for k, v in files(workspace).items() if "features" in k.parts}
    other = Matcher.of_version(workspace, add_version(workspace, seed=1))
    done = index_folder(workspace, library, other)
    assert (done.pictures, other.fingerprint != matcher.fingerprint) == (5, True)
    assert {k: v for k, v in files(workspace).items() if "features" in k.parts} == towers


def test_any_model_can_index_a_folder(workspace: Workspace, library: Path) -> None:
    matcher = Matcher.of_model("sample")
    index_folder(workspace, library, matcher)
    index = open_index(workspace, folder_place(matcher.fingerprint, library))
    vectors = dict(zip([e.id for e in index.entries], index.vectors.matrix, strict=True))
    images = [matcher.read_picture(library / id_) for id_ in vectors]
    plain = SentenceTransformer(str(MODEL)).encode(images, normalize_embeddings=True)
    assert np.stack(list(vectors.values())) == pytest.approx(plain, abs=1e-5)


@pytest.mark.slow
def test_a_large_library_has_a_graph_whose_recall_is_told_and_kept(
    workspace: Workspace, version: Version, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = channel_place(matcher.fingerprint, version)
    index_channel(workspace, version, matcher)
    exact = search_words(open_index(workspace, place), matcher, "a boat", top=5)
    workspace.remove(place)
    monkeypatch.setattr(indexing, "EXACT_BELOW", 30)
    assert index_channel(workspace, version, matcher).recall_at_10 == 1.0
    index = open_index(workspace, place)
    assert index.vectors.graph is not None
    found = search_words(index, matcher, "a boat", top=5)
    assert [hit.id for hit in found] == [hit.id for hit in exact]
    assert [hit.cosine for hit in found] == pytest.approx([hit.cosine for hit in exact], abs=1e-6)
    workspace.write_file("thumbnails/new.jpg", encoded(picture()))
    new = Entry(id="new", title="A new video", image="thumbnails/new.jpg")
    assert index_channel(workspace, version, matcher, [new]).recall_at_10 == 1.0
    [hit] = search_picture(open_index(workspace, place), matcher, picture_of(new, workspace), 1)
    assert hit.id == "new"


def picture_of(entry: Entry, workspace: Workspace) -> Image.Image:
    return Image.open(workspace.root / entry.image)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".jsonl", ".safetensors", ".usearch", "index.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-20] + b"x" * 20),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
    ids=["changed", "empty", "gone"],
)
def test_a_damaged_index_is_an_error_and_is_made_again(
    workspace: Workspace,
    version: Version,
    matcher: Matcher,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    damage: Callable[[Path], Any],
) -> None:
    monkeypatch.setattr(indexing, "EXACT_BELOW", 30)
    place = channel_place(matcher.fingerprint, version)
    index_channel(workspace, version, matcher)
    hits = search_words(open_index(workspace, place), matcher, "a boat")
    folder = workspace.root / place
    [file] = (file for file in folder.iterdir() if file.name.endswith(ending))
    damage(file)
    with pytest.raises(NoIndexError, match="or it is damaged"):
        open_index(workspace, place)
    assert index_channel(workspace, version, matcher).added == 40
    assert search_words(open_index(workspace, place), matcher, "a boat") == hits
    assert len(list(folder.iterdir())) == 5  # no left-overs


def update_often(root: Path, version: Version, folder: Path, rounds: int) -> None:
    workspace = Workspace.open(root)
    matcher = Matcher.of_version(workspace, version)
    for n in range(rounds):
        extra = folder / f"extra-{os.getpid()}.jpg"
        extra.write_bytes(encoded(picture(seed=n)))
        index_folder(workspace, folder, matcher)
        extra.unlink()


@pytest.mark.slow
def test_two_writers_and_a_reader_at_once_always_see_a_whole_index(
    workspace: Workspace, version: Version, matcher: Matcher, library: Path
) -> None:
    index_folder(workspace, library, matcher)
    arguments = (workspace.root, version, library, 15)
    writers = [FORKS.Process(target=update_often, args=arguments) for _ in range(2)]
    for writer in writers:
        writer.start()
    place = folder_place(matcher.fingerprint, library)
    sizes = set()
    while any(writer.is_alive() for writer in writers):
        index = open_index(workspace, place)
        hits = search_words(index, matcher, "anything")  # a writer may have removed a picture
        assert len(hits) + sum(hits.left_out.values()) == len(index) == len(index.entries)
        sizes.add(len(index))
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert max(sizes) > 5
    assert index_folder(workspace, library, matcher).pictures == 5


@pytest.mark.slow
def test_a_killed_update_leaves_a_whole_index_and_blocks_nobody(
    workspace: Workspace, version: Version, matcher: Matcher, library: Path
) -> None:
    index_folder(workspace, library, matcher)
    place = folder_place(matcher.fingerprint, library)
    process = FORKS.Process(target=update_often, args=(workspace.root, version, library, 10_000))
    before = workspace.read(f"{place}/index.json")
    process.start()
    while workspace.read(f"{place}/index.json") == before:
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert len(open_index(workspace, place)) in (5, 6)
    for extra in library.glob("extra-*"):
        extra.unlink()
    assert index_folder(workspace, library, matcher).pictures == 5
    assert len(list((workspace.root / place).iterdir())) == 4


@pytest.mark.slow
def test_what_cannot_be_indexed_or_searched_is_an_error_with_the_mend(
    workspace: Workspace, version: Version, matcher: Matcher, tmp_path: Path
) -> None:
    with pytest.raises(LibraryError, match=f"there is no folder {tmp_path / 'gone'}"):
        index_folder(workspace, tmp_path / "gone", matcher)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="empty has no JPEG, PNG, WebP or GIF picture"):
        index_folder(workspace, tmp_path / "empty", matcher)
    (tmp_path / "empty" / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(LibraryError, match=r"to index \(1 not a JPEG"):
        index_folder(workspace, tmp_path / "empty", matcher)
    with pytest.raises(NoIndexError, match="thumbtune index FOLDER"):
        open_index(workspace, folder_place(matcher.fingerprint, tmp_path))
    index_channel(workspace, version, matcher)
    index = open_index(workspace, channel_place(matcher.fingerprint, version))
    with pytest.raises(TitleError, match="words: there are none"):
        search_words(index, matcher, " ")


@pytest.mark.usefixtures("prefect_harness")
def test_the_task_loads_no_model_where_nothing_is_new(
    workspace: Workspace, version: Version, matcher: Matcher
) -> None:
    assert index_thumbnails(workspace, version, version.examples) == 40
    workspace.place(version.model.path).rename(workspace.root / "elsewhere")
    assert index_thumbnails(workspace, version, version.examples) == 40
    new = workspace.write_table("entries", [Entry(id="n", title="n", image="thumbnails/n.jpg")])
    assert index_thumbnails(workspace, version, new) is None  # warned of: it cannot be loaded


def test_rows_of_an_example_are_entries(workspace: Workspace, version: Version) -> None:
    examples = examples_of(workspace, version)
    table: Table = version.examples
    for example, entry in zip(examples, workspace.read_table(table, Entry), strict=True):
        assert (entry.id, entry.title, entry.crop) == (example.id, example.title, example.crop)
        assert 0 <= entry.number < 2**63


def test_a_library_smaller_than_asked_gives_all_it_has() -> None:
    vectors = Vectors(np.arange(3), unit_vectors(3), None)
    rows, cosines = vectors.search(unit_vectors(1), 12)
    assert rows.shape == cosines.shape == (1, 3)
