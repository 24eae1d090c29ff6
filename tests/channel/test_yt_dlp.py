"""Folders as yt-dlp leaves them: where it puts thumbnails, and what goes wrong with a file."""

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from thumbtune.channel.listing import Video
from thumbtune.channel.sources.folder.listing import check_pictures, list_folder
from thumbtune.errors import SourceError
from thumbtune.parameters import ThumbnailsParameters

STEM = "Título 2 [a-_b]"


def describe(folder: Path, stem: str, **fields: Any) -> Path:
    file = folder / f"{stem}.info.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"id": "a-_b", "title": "T", "duration": 300, **fields}))
    return file


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"picture")


def only(folder: Path) -> Video:
    [video], _ = list_folder(folder)
    return video


WAYS = {
    "beside": [f"{STEM}.webp"],
    "with the ending in capitals": [f"{STEM}.JPG"],
    "as media servers want it": [f"{STEM}-thumb.jpg"],
    "as media servers want a poster": [f"{STEM}-poster.jpg"],
    "in a folder of its own": [f"thumbs/{STEM}.webp"],
    "in a deeper folder": [f"thumbnails/2024/{STEM}.png"],
    "the largest of all": [f"{STEM}.41.jpg", f"{STEM}.0.jpg", f"{STEM}.7.jpg"],
    "the largest of all, with underscores": [f"{STEM}_10.jpg", f"{STEM}_9.jpg"],
    "by the id": ["thumbs/a-_b.jpg"],
    "by the id in brackets": ["Another title [a-_b].jpg", "Another title [c].jpg"],
    "the plain name before an addition": [f"{STEM}.jpg", f"{STEM}.3.jpg", f"{STEM}-thumb.jpg"],
    "what can be read before what cannot": [f"{STEM}.png", f"{STEM}.avif"],
    "of an unknown type": [f"{STEM}.image"],
    "that will be refused by its type": [f"{STEM}.avif"],
    "in the other form of Unicode": [f"{unicodedata.normalize('NFD', STEM)}.jpg"],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_thumbnail_is_found_where_yt_dlp_puts_it(tmp_path: Path, way: str) -> None:
    describe(tmp_path, STEM)
    put(tmp_path, *WAYS[way])
    assert only(tmp_path).thumbnails == {"file": str(tmp_path / WAYS[way][0])}


def test_each_video_of_a_folder_for_each_channel_has_the_picture_beside_it(tmp_path: Path) -> None:
    for channel in ("one", "two"):
        describe(tmp_path, f"{channel}/2024/Intro", id=channel)
        put(tmp_path, f"{channel}/2024/Intro.jpg")
    files = [
        Path(video.thumbnails["file"]).relative_to(tmp_path) for video in list_folder(tmp_path)[0]
    ]
    assert list(map(str, files)) == ["one/2024/Intro.jpg", "two/2024/Intro.jpg"]


def test_a_numbered_video_is_no_other_thumbnail_of_an_unnumbered_one(tmp_path: Path) -> None:
    for stem in ("Trip", "Trip_2"):
        describe(tmp_path, stem, id=stem)
    put(tmp_path, "Trip_2.jpg")
    there = {v.id: Path(v.thumbnails["file"]).is_file() for v in list_folder(tmp_path)[0]}
    assert there == {"Trip": False, "Trip_2": True}


def test_ids_that_differ_by_case_are_two(tmp_path: Path) -> None:
    describe(tmp_path, "T [abC]", id="abC")
    put(tmp_path, "T [aBc].jpg")
    assert not Path(only(tmp_path).thumbnails["file"]).is_file()


def test_a_picture_that_is_nowhere_is_fetched_from_the_address_in_the_file(tmp_path: Path) -> None:
    url = "https://i.ytimg.com/vi/a/maxresdefault.webp"
    describe(tmp_path, STEM, thumbnail=url)
    assert only(tmp_path).thumbnails == {"high": url}
    put(tmp_path, f"{STEM}.jpg")
    assert only(tmp_path).thumbnails == {"file": str(tmp_path / f"{STEM}.jpg")}


@pytest.mark.parametrize("thumbnail", [None, "NA", 7, "file:///etc/passwd", "\ud800"])
def test_without_a_picture_and_an_address_the_name_is_told_while_listing(
    tmp_path: Path, thumbnail: Any
) -> None:
    describe(tmp_path, "v", thumbnail=thumbnail)
    with pytest.raises(SourceError, match=r"1 of 1 pictures are not in .*: 'v\.jpg'"):
        check_pictures(tmp_path, [only(tmp_path)], ThumbnailsParameters(), print)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"id": "b", "ti', b"[]", b"null", b"\xff\xfe\xfa", b"\0" * 500),
        *(b'{"title": "no id"}', b'{"id": "b", "title": ["T"]}'),
        b'{"id": "b", "title": "T", "duration": "long"}',
    ],
)
def test_a_file_that_cannot_be_used_leaves_out_its_video_by_name(
    tmp_path: Path, content: bytes
) -> None:
    told: list[str] = []
    describe(tmp_path, "Good [a]")
    (tmp_path / "Bad [b].info.json").write_bytes(content)
    (tmp_path / "._Good [a].info.json").write_bytes(b"of macOS")
    videos, dropped = list_folder(tmp_path, told.append)
    assert [video.id for video in videos] == ["a-_b"]
    assert dropped == {"unreadable info.json": 1}
    assert len(told) == 1
    assert "Bad [b].info.json" in told[0]


def set_time(file: Path, seconds: float) -> None:
    os.utime(file, (seconds, seconds))


@pytest.mark.parametrize("by", ["epoch", "time", "time without epoch"])
@pytest.mark.parametrize("newer", ["1 first", "2 second"])
def test_of_two_files_of_one_video_the_newer_counts(tmp_path: Path, by: str, newer: str) -> None:
    told: list[str] = []
    for stem in ("1 first", "2 second"):
        now = 2_000 if stem == newer else 1_000
        epoch = {"epoch": now} if by == "epoch" else {"epoch": None} if by == "time" else {}
        file = describe(tmp_path, stem, title=stem, **epoch)
        set_time(file, 5_000 - now if by == "epoch" else now)
        put(tmp_path, f"{stem}.jpg")
    [video], dropped = list_folder(tmp_path, told.append)
    assert video.title == newer
    assert Path(video.thumbnails["file"]).stem == newer
    assert dropped == {"older info.json of the same video": 1}
    assert newer not in told[0]


def test_files_that_were_copied_together_are_told_apart_by_name_alone(tmp_path: Path) -> None:
    for n, stem in enumerate(("A name", "Another")):
        set_time(describe(tmp_path, stem, title=stem), 1_000 + n / 1_000)
    copy = shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    assert only(tmp_path).title == only(copy).title == "A name"


@pytest.mark.parametrize("kind", ["playlist", "channel", "multi_video", "url"])
def test_a_folder_with_a_playlists_file_alone_is_told_what_to_run(
    tmp_path: Path, kind: str
) -> None:
    describe(tmp_path, "Tester - Videos [UC]", _type=kind)
    with pytest.raises(SourceError) as refused:
        list_folder(tmp_path)
    assert "without --flat-playlist" in str(refused.value)
    assert "Tester - Videos [UC].info.json" in str(refused.value)
