"""Listing a folder's videos, from a manifest or from what yt-dlp wrote."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thumbtune.channel.sources.folder.listing import folder_stamp, list_folder
from thumbtune.channel.videos import list_videos
from thumbtune.errors import SourceError
from thumbtune.parameters import VideosParameters
from thumbtune.sample import CHANNEL
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.fetch_videos import fetch_videos

ROWS = [
    {"id": "007", "title": "1984", "image": "a.jpg", "duration": "PT4M30S"},
    {"id": "b", "title": "Título 😱, with a comma", "image": "b/b.png", "duration": "200.5"},
    {"id": "c", "title": "No times", "image": "c.jpg"},
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"manifest.{kind}"
    if kind == "json":
        file.write_text(json.dumps(rows))
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        with file.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, ["id", "title", "image", "duration", "publishedAt"])
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_manifest_is_json_json_lines_or_csv(tmp_path: Path, kind: str) -> None:
    videos, dropped = list_folder(write(tmp_path, kind, ROWS))
    assert [(video.id, video.title) for video in videos] == [
        (row["id"], row["title"]) for row in ROWS
    ]
    assert [video.duration_seconds for video in videos] == [270, 200.5, None]
    assert videos[1].thumbnails == {"file": str(tmp_path / "b" / "b.png")}
    assert dropped == {}


text = st.text(st.characters(codec="utf-8", categories=["L", "N", "S", "P"]), min_size=1)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(text, text), min_size=1), kind=st.sampled_from(["json", "csv"]))
def test_any_id_and_title_come_back_as_they_were(
    tmp_path: Path, rows: list[tuple[str, str]], kind: str
) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    write(tmp_path, kind, [{"id": i, "title": t, "image": "x.jpg"} for i, t in rows])
    assert [(video.id, video.title) for video in list_folder(tmp_path)[0]] == rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"title": "t", "image": "a"}, r"manifest\.json, entry 2: the field 'id' is missing"),
        ({"id": "x", "image": "a"}, "the field 'title' is missing"),
        ({"id": "x", "title": ["t"], "image": "a"}, "the field 'title' is missing or no text"),
        ({"id": "x", "title": "t", "image": "../a"}, r"image '\.\./a' lies outside the folder"),
        ({"id": "x", "title": "t", "image": "/etc/passwd"}, "lies outside the folder"),
        ({"id": "x", "title": "t", "image": "a", "duration": "long"}, "duration 'long' is neither"),
        ({"id": "x", "title": "t", "image": "a", "duration": -1}, "duration -1 is neither"),
        ({"id": "x", "title": "t", "image": "a", "publishedAt": "May"}, "publishedAt 'May' is not"),
        ("x", "must be an object with id, title and image"),
    ],
)
def test_a_wrong_entry_is_an_error_that_names_file_entry_and_field(
    tmp_path: Path, row: Any, message: str
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps([ROWS[0], row]))
    with pytest.raises(SourceError, match=message):
        list_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", "[{", r"manifest\.json: the file is not valid JSON"),
        ("manifest.json", "{}", "must be a JSON list"),
        ("manifest.jsonl", '{"id": "a"', r"manifest\.jsonl: line 1 is not valid JSON"),
        ("v.info.json", "{", r"v\.info\.json: not valid JSON"),
        ("else.txt", "", "neither a manifest .* nor yt-dlp's"),
    ],
)
def test_an_unreadable_folder_is_an_error_that_names_the_file(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        list_folder(tmp_path)


@pytest.mark.parametrize("listed", ["manifest.json", "v.info.json"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, listed: str) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"not for a model")
    folder = tmp_path / "channel"
    folder.mkdir()
    (folder / "v.jpg").symlink_to("../mine.jpg")
    row = {"id": "v", "title": "t", "image": "v.jpg"}
    (folder / listed).write_text(json.dumps([row] if listed == "manifest.json" else row))
    with pytest.raises(SourceError, match=r"image 'v\.jpg' lies outside the folder"):
        list_folder(folder)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        list_folder(tmp_path / "gone")


def test_a_yt_dlp_folder_is_read(tmp_path: Path) -> None:
    def info(name: str, **fields: Any) -> None:
        (tmp_path / f"{name}.info.json").write_text(json.dumps(fields))

    info("First [a]", id="a", title="First", duration=300, upload_date="20240131")
    info("Live [b]", id="b", title="Live", live_status="is_live")
    info("Soon [c]", id="c", title="Soon", live_status="is_upcoming")
    info("Channel", id="UC", title="Channel - Videos", _type="playlist")
    (tmp_path / "First [a].webp").write_bytes(b"picture")
    [video], dropped = list_folder(tmp_path)
    assert (video.id, video.title, video.duration_seconds) == ("a", "First", 300)
    assert video.published_at == "2024-01-31T00:00:00Z"
    assert video.thumbnails == {"file": str(tmp_path / "First [a].webp")}
    assert dropped == {"live now": 1, "upcoming": 1}


def test_the_long_form_filter_and_the_reasons_hold_for_folders_too(
    tmp_path: Path, workspace: Workspace
) -> None:
    rows: list[dict[str, Any]] = [
        *ROWS,
        {**ROWS[0]},
        {"id": "s", "title": "Short", "image": "s.jpg", "duration": 59},
        {"id": "e", "title": " ", "image": "e.jpg"},
    ]
    listing = list_videos(
        workspace, "folder", str(write(tmp_path, "json", rows)), VideosParameters()
    )
    assert len(listing.videos) == 3
    assert listing.dropped == {"listed twice": 1, "of 180 s or shorter": 1, "no title": 1}


def test_the_bundled_channel_is_a_folder_with_shorts(workspace: Workspace) -> None:
    listing = list_videos(workspace, "sample", None, VideosParameters())
    assert len(listing.videos) >= 120
    assert listing.dropped == {"of 180 s or shorter": 6}
    assert len({video.title for video in listing.videos}) < len(listing.videos)


@pytest.mark.usefixtures("prefect_harness")
def test_the_cached_list_is_used_until_a_file_changes(tmp_path: Path, workspace: Workspace) -> None:
    def fetch() -> str:
        arguments = (workspace, "folder", str(folder), VideosParameters())
        return fetch_videos(*arguments, return_state=True).name

    folder = tmp_path / "channel"
    folder.mkdir()
    write(folder, "json", ROWS)
    (folder / "a.jpg").write_bytes(b"one")
    assert [fetch(), fetch()] == ["Completed", "Cached"]
    (folder / "a.jpg").write_bytes(b"another picture")
    assert [fetch(), fetch()] == ["Completed", "Cached"]


def test_a_stamp_is_of_all_files(tmp_path: Path) -> None:
    before = folder_stamp(CHANNEL)
    assert folder_stamp(CHANNEL) == before
    assert folder_stamp(tmp_path) != before
