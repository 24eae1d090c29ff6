"""The map of a channel: nothing hides another, groups have names, and it is drawn once."""

from base64 import b64decode
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thumbtune.channel.registry import Version
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import ThumbnailIndex, index_channel, open_index
from thumbtune.use.mapping import (
    MARK,
    ChannelMap,
    MapError,
    clusters_of,
    map_of,
    names_of,
    on_a_grid,
)
from thumbtune.use.matching import Matcher, examples_of


@pytest.fixture
def index(workspace: Workspace, version: Version) -> ThumbnailIndex:
    made = index_channel(workspace, version, Matcher.of_version(workspace, version))
    return open_index(workspace, made.folder)


@pytest.fixture
def dates(workspace: Workspace, version: Version) -> dict[str, str]:
    return {row.id: row.published_at or "" for row in examples_of(workspace, version)}


@settings(max_examples=50)
@given(
    places=st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=120)
)
def test_each_picture_has_a_cell_of_its_own(places: list[tuple[int, int]]) -> None:
    cells, (columns, rows) = on_a_grid(np.array(places, np.float32))
    assert len({tuple(cell) for cell in cells.tolist()}) == len(places)
    assert cells.min() >= 0
    assert (cells < (columns, rows)).all()


def test_what_lies_apart_stays_apart() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.array([(0, 0), (100, 0), (50, 100)]), 20, axis=0)
    cells, _ = on_a_grid((groups + rng.normal(0, 5, groups.shape)).astype(np.float32))
    middles = [cells[start : start + 20].mean(axis=0) for start in (0, 20, 40)]
    spread = max(cells[start : start + 20].std() for start in (0, 20, 40))
    assert all(
        np.linalg.norm(middles[a] - middles[b]) > spread for a, b in ((0, 1), (0, 2), (1, 2))
    )


def test_groups_are_named_by_what_sets_their_titles_apart() -> None:
    titles = [f"The {what} number {n}" for what in ("rocket", "garden") for n in range(9)]
    names = names_of(titles, [0] * 9 + [1] * 9)
    assert names == {0: "rocket", 1: "garden"}


@pytest.mark.parametrize("titles", [["!!", "??"], ["新しい家", "古い車"]])
def test_where_no_word_returns_a_group_has_no_name(titles: list[str]) -> None:
    assert names_of(titles, [0, 1]) == {0: "", 1: ""}


def test_places_that_lie_together_are_one_group() -> None:
    rng = np.random.default_rng(1)
    places = np.concatenate([rng.normal(middle, 0.02, (8, 2)) for middle in (0.1, 0.5, 0.9)])
    found = clusters_of(places)
    assert [len(set(found[start : start + 8])) for start in (0, 8, 16)] == [1, 1, 1]
    assert len(set(found)) == 3


@pytest.mark.slow
def test_the_map_shows_each_thumbnail_where_it_says_and_marks_the_newest(
    workspace: Workspace, index: ThumbnailIndex, dates: dict[str, str]
) -> None:
    drawn = map_of(workspace, "channel", index, dates)
    assert {spot.id for spot in drawn.spots} == {entry.id for entry in index.entries}
    assert sorted(id_ for cluster in drawn.clusters for id_ in cluster.ids) == sorted(
        spot.id for spot in drawn.spots
    )
    picture = Image.open(BytesIO(b64decode(drawn.picture))).convert("RGB")
    files = {entry.id: entry for entry in index.entries}
    newest = sorted(dates, key=lambda id_: dates[id_])[-12:]
    columns = round(1 / min_gap(drawn))
    width, height = picture.width // columns, picture.height // columns
    for spot in drawn.spots:
        assert drawn.nearest(spot.x + 0.2 / columns, spot.y) == spot
        left, top = int(spot.x * picture.width) - width // 2, int(spot.y * picture.height)
        shown = picture.crop((left, top - height // 2, left + width, top + height // 2))
        with Image.open(files[spot.id].file(workspace)) as stored:
            whole = stored.convert("RGB").crop(files[spot.id].crop)
        expected = np.asarray(whole.resize((8, 4), Image.Resampling.BOX), int)[1:3, 2:6]
        there = np.asarray(shown.resize((8, 4), Image.Resampling.BOX), int)[1:3, 2:6]
        assert abs(expected - there).mean() < 16
        mark = Image.new("RGB", (1, 1), MARK).getpixel((0, 0))
        corner = picture.getpixel((left + width // 2, top - height // 2 + 1))
        marked = np.abs(np.subtract(corner, mark)).sum() < 60  # type: ignore[arg-type]
        assert marked == (spot.id in newest)


def min_gap(drawn: ChannelMap) -> float:
    """The width of a cell."""
    places = sorted({round(spot.x, 6) for spot in drawn.spots})
    return min(b - a for a, b in pairwise(places))


@pytest.mark.slow
def test_it_is_drawn_once_and_again_where_the_kept_one_is_damaged_or_of_other_pictures(
    workspace: Workspace, index: ThumbnailIndex, dates: dict[str, str]
) -> None:
    first = map_of(workspace, "channel", index, dates)
    file = workspace.root / "maps" / "channel.json"
    changed = first.model_copy(update={"left_out": 77})
    file.write_text(changed.model_dump_json())
    assert map_of(workspace, "channel", index, dates) == changed  # it was not drawn anew
    file.write_text(changed.model_dump_json()[:-9])
    assert map_of(workspace, "channel", index, dates) == first
    file.write_text(changed.model_copy(update={"of": "other pictures"}).model_dump_json())
    assert map_of(workspace, "channel", index, dates) == first


@pytest.mark.slow
def test_a_thumbnail_that_is_gone_is_left_out_and_counted(
    workspace: Workspace, index: ThumbnailIndex, dates: dict[str, str]
) -> None:
    gone, damaged = index.entries[3], index.entries[5]
    gone.file(workspace).unlink()
    damaged.file(workspace).write_bytes(b"no picture")
    drawn = map_of(workspace, "channel", index, dates)
    assert {gone.id, damaged.id}.isdisjoint(spot.id for spot in drawn.spots)
    assert drawn.left_out == 2


@pytest.mark.slow
def test_a_handful_of_thumbnails_needs_no_map(index: ThumbnailIndex, workspace: Workspace) -> None:
    few = ThumbnailIndex(workspace, index.lines[:7], index.vectors, index.files)
    with pytest.raises(MapError, match="There are 7 thumbnails; a map begins with 8"):
        map_of(workspace, "channel", few, {})
