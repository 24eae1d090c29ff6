"""Manifests as real programs write them: separators, headers, encodings, and where a fault is."""

import csv
import io
import itertools
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.test_thumbnails import encoded, picture
from thumbtune.channel.listing import Video
from thumbtune.channel.sources.folder.listing import check_pictures, list_folder
from thumbtune.errors import SourceError
from thumbtune.parameters import ThumbnailsParameters

HEADER = "id,title,image,duration"


def read(folder: Path, content: str | bytes, name: str = "manifest.csv") -> list[Video]:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    return list_folder(folder)[0]


def refusal(folder: Path, content: str | bytes, name: str = "manifest.csv") -> str:
    with pytest.raises(SourceError) as refused:
        read(folder, content, name)
    return str(refused.value)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=15)
titles = st.lists(words | st.sampled_from([*',;|\t:"\n', "\r\n", "a;b,c"]), max_size=6).map("".join)
ids = words.filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(ids, titles), min_size=1, max_size=5),
    separator=st.sampled_from(",;\t|:"),
    form=st.sampled_from(
        [("\r\n", csv.QUOTE_MINIMAL), *((end, csv.QUOTE_ALL) for end in ("\r\n", "\n", "\r"))]
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    told=st.booleans(),
)
def test_any_titles_come_back_from_any_csv_file(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    separator: str,
    form: tuple[str, Any],
    encoding: str,
    told: bool,
) -> None:
    end, quoting = form
    stream = io.StringIO(newline="")
    stream.write(f"sep={separator}{end}" if told else "")
    writer = csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerow(["id", "title", "image"])
    writer.writerows([id_, title, "x.jpg"] for id_, title in rows)
    videos = read(tmp_path, stream.getvalue().encode(encoding))
    expected = [(id_.strip(), title.strip()) for id_, title in rows]
    assert [(video.id, video.title) for video in videos] == expected


@pytest.mark.parametrize(
    "header",
    [
        " ID , Title ,IMAGE,Duration",
        '"id","title","image","duration"',
        "\ufeffvideo_id,title,thumbnail,duration_seconds",
        "videoId,Video Title,thumbnail_url,duration",
        "VIDEO ID,TITLE,Thumbnail URL,DURATION",
    ],
)
def test_columns_are_known_by_their_common_names(tmp_path: Path, header: str) -> None:
    [video] = read(tmp_path, f"{header}\na,One,a.jpg,60\n")
    assert (video.id, video.title, video.duration_seconds) == ("a", "One", 60)
    assert video.thumbnails == {"file": str(tmp_path / "a.jpg")}


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.json", "manifest.jsonl"])
def test_a_fields_own_name_comes_before_others_in_every_kind_of_manifest(
    tmp_path: Path, name: str
) -> None:
    row = {"video_id": "no", "id": "yes", "Title": "T", "image": "a.jpg", "thumbnail": "b.jpg"}
    content = {
        "manifest.csv": f"{','.join(row)}\n{','.join(row.values())}",
        "manifest.json": json.dumps([row]),
        "manifest.jsonl": json.dumps(row),
    }
    [video] = read(tmp_path, content[name], name)
    assert (video.id, video.title) == ("yes", "T")
    assert video.thumbnails == {"file": str(tmp_path / "a.jpg")}


def test_two_columns_that_could_be_a_field_are_refused_by_name(tmp_path: Path) -> None:
    said = refusal(tmp_path, "id,title,thumbnail,thumbnail_url\na,T,a.jpg,https://x.org/a.jpg")
    assert "'thumbnail', 'thumbnail_url' could each be the field 'image'" in said


def test_a_header_that_lacks_a_field_is_told_with_the_columns_found(tmp_path: Path) -> None:
    said = refusal(tmp_path, "id;name;picture;\na;One;a.jpg;\n")
    assert "line 1" in said
    assert "it lacks 'title', 'image'. It has 'id', 'name', 'picture'." in said


def test_blank_rows_count_nowhere_but_in_the_number_of_the_line(tmp_path: Path) -> None:
    content = f'\n,,,\n{HEADER}\n,,,\n\na,"T\nof, two lines",a.jpg,\n , ,,\nb,T,,\n,,,\n'
    assert "manifest.csv: line 9: the field 'image' is missing" in refusal(tmp_path, content)
    videos = read(tmp_path, content.replace("b,T,,", "b,T,b.jpg,,,,"))
    assert [video.title for video in videos] == ["T\nof, two lines", "T"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b,One, two and three,b.jpg,600", "line 3 has 5 cells, but there are 4 columns"),
        ("b,T", "line 3: the field 'image' is missing"),
        ("b,T,b.jpg,long", "line 3: duration 'long' is neither"),
        ('b,"never closed,b.jpg,1\nc,T,c.jpg,2\n', "line 3 is not valid CSV"),
        ('b,"half" of it,b.jpg,1', "line 3 is not valid CSV"),
        ("b,T,../b.jpg,1", r"line 3: image '../b.jpg' lies outside"),
    ],
)
def test_a_fault_is_told_by_its_line_and_the_mend(tmp_path: Path, row: str, said: str) -> None:
    told = refusal(tmp_path, f"{HEADER}\na,T,a.jpg,\n{row}")
    assert told.startswith("manifest.csv: line 3")
    assert said in told


def test_a_long_field_that_nobody_asked_for_is_passed_over(tmp_path: Path) -> None:
    [video] = read(tmp_path, f"id,title,image,transcript\na,T,a.jpg,{'word ' * 100_000}")
    assert video.title == "T"


@pytest.mark.parametrize("id_", ["00123", "1e5", "nan", "NA", "None", "TRUE", "-abc", "=x"])
def test_an_id_stays_the_text_it_is(tmp_path: Path, id_: str) -> None:
    [video] = read(tmp_path, f"id,title,image\n{id_},null,a.jpg")
    assert (video.id, video.title) == (id_, "null")


def test_another_encoding_is_told_by_its_line_and_the_mend(tmp_path: Path) -> None:
    said = refusal(tmp_path, f"{HEADER}\na,T,a.jpg,\nb,Café,b.jpg,".encode("cp1252"))
    assert "line 3 is not UTF-8" in said
    assert "Save it as UTF-8" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.csv", "", "line 1 must name the columns"),
        ("manifest.csv", HEADER, "lists no video"),
        ("manifest.json", "[]", "lists no video"),
        ("manifest.jsonl", "\n\n", "lists no video"),
        ("manifest.json", '{"videos": [{"id": "a"}]}', "under 'videos': leave only that"),
        ("manifest.json", '{"id": "a"}\n{"id": "b"}', "name it manifest.jsonl"),
        ("manifest.jsonl", '[\n{"id": "a"}]', "name it manifest.json"),
        ("manifest.jsonl", '\n\n{"id": "a"}\n', r"line 3: the field 'image' is missing"),
        ("manifest.json", '[{"id": "a", "name": "T"}]', "It has 'id', 'name'"),
    ],
)
def test_what_is_no_list_of_videos_is_told_what_it_lacks(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    assert said in refusal(tmp_path, content, name)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_json_lines_may_have_any_ends_and_a_byte_order_mark(
    tmp_path: Path, end: str, encoding: str
) -> None:
    rows = [{"id": str(n), "title": "é", "image": "a.jpg"} for n in range(3)]
    content = end.join(map(json.dumps, rows)).encode(encoding)
    assert [video.id for video in read(tmp_path, content, "manifest.jsonl")] == ["0", "1", "2"]


def test_of_two_manifests_the_one_that_is_read_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "manifest.json").write_text('[{"id": "a", "title": "T", "image": "a.jpg"}]')
    (tmp_path / "Manifest.CSV").write_text("id,title,image\na,U,a.jpg")
    (tmp_path / "v.info.json").write_text('{"id": "v", "title": "V"}')
    [video], _ = list_folder(tmp_path, told.append)
    assert video.title == "T"
    [sentence] = told
    assert sentence.startswith("manifest.json is read, not 'Manifest.CSV', 'v.info.json'")


CAFE = "Café crème.jpg"
SPELLINGS = {
    "as it is": ("a/b c.jpg", "a/b c.jpg"),
    "with backslashes": ("a\\b c.jpg", "a/b c.jpg"),
    "with a dot": ("./a//b c.jpg", "a/b c.jpg"),
    "with capitals": ("A/B C.JPG", "a/b c.jpg"),
    "with the ending in capitals on the disk": ("x.jpg", "x.JPG"),
    "with another ending": ("x.jpg", "x.jpeg"),
    "without an ending": ("x", "x.webp"),
    "with %20": ("a/b%20c.jpg", "a/b c.jpg"),
    "with a % that means itself": ("100%25.jpg", "100%25.jpg"),
    "composed": (unicodedata.normalize("NFC", CAFE), unicodedata.normalize("NFD", CAFE)),
    "decomposed": (unicodedata.normalize("NFD", CAFE), unicodedata.normalize("NFC", CAFE)),
    "by Windows's whole path": ("C:\\Users\\me\\channel\\a\\b c.jpg", "a/b c.jpg"),
    "by another machine's path": ("/home/me/channel/a/b c.jpg", "a/b c.jpg"),
    "by a file address": ("file:///C:/channel/a/b%20c.jpg", "a/b c.jpg"),
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_a_picture_is_found_by_its_name_as_other_systems_write_it(tmp_path: Path, how: str) -> None:
    image, file = SPELLINGS[how]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"picture")
    rows = [{"id": "v", "title": "T", "image": image}]
    [video] = read(tmp_path, json.dumps(rows), "manifest.json")
    assert video.thumbnails == {"file": str(tmp_path / file)}
    assert video.thumbnail_version


def test_a_name_that_could_be_two_files_is_neither(tmp_path: Path) -> None:
    for file in ("A.jpg", "a.JPG", "b.png", "b.webp"):
        (tmp_path / file).write_bytes(b"picture")
    videos = read(tmp_path, "id,title,image\n1,T,a.jpg\n2,T,b.jpg\n3,T,A.jpg")
    there = [Path(video.thumbnails["file"]).is_file() for video in videos]
    assert there == [False, False, True]


LETTERS = st.characters(categories=["L"], max_codepoint=0x24F)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(LETTERS, min_size=1, max_size=8), form=st.sampled_from(["NFC", "NFD"]))
def test_any_name_is_found_in_either_form_with_either_slash(
    tmp_path_factory: pytest.TempPathFactory, name: str, form: Any
) -> None:
    folder = tmp_path_factory.mktemp("channel")
    (folder / "thumbs").mkdir()
    (folder / "thumbs" / f"{unicodedata.normalize(form, name)}.jpg").write_bytes(b"picture")
    for other, slash in itertools.product(("NFC", "NFD"), "/\\"):
        image = f"thumbs{slash}{unicodedata.normalize(other, name)}.jpg"
        row = {"id": "v", "title": "T", "image": image}
        [video] = read(folder, json.dumps([row]), "manifest.json")
        assert Path(video.thumbnails["file"]).is_file()


@pytest.mark.parametrize(
    "image", ["https://i.ytimg.com/vi/a/hq.jpg", "HTTPS://i.ytimg.com/a", "//i.ytimg.com/vi/a.jpg"]
)
def test_a_url_as_image_is_one_to_fetch(tmp_path: Path, image: str) -> None:
    [video] = read(tmp_path, f"id,title,image\na,T,{image}")
    address = f"https:{image}" if image.startswith("//") else image
    assert (video.thumbnails, video.thumbnail_version) == ({"high": address}, "")


def thirty(folder: Path, missing: int, other: str = "") -> list[Video]:
    (folder / "there.jpg").write_bytes(encoded(picture()))
    names = [other or f"gone-{n}.jpg" if n < missing else "there.jpg" for n in range(30)]
    rows = "".join(f"{n},T,{name}\n" for n, name in enumerate(names))
    return read(folder, f"id,title,image\n{rows}")


def test_a_few_pictures_that_are_not_there_are_told_by_name(tmp_path: Path) -> None:
    told: list[str] = []
    check_pictures(tmp_path, thirty(tmp_path, 0), ThumbnailsParameters(), told.append)
    assert told == []
    check_pictures(tmp_path, thirty(tmp_path, 3), ThumbnailsParameters(), told.append)
    assert "3 of 30 pictures are not in" in told[0]
    assert "'gone-0.jpg', 'gone-1.jpg', 'gone-2.jpg'." in told[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("", r"4 of 30 pictures are not in .*'gone-0\.jpg', .* and 1 more.*max_bad_share=0\.1"),
        (
            "https://example.org/a.jpg",
            r"4 of 30 .* not be fetched: host 'example\.org' is not in thumbnails\.allowed_hosts",
        ),
        ("http://i.ytimg.com/a.jpg", "give an https URL"),
    ],
)
def test_too_many_pictures_that_cannot_come_stop_the_run_while_listing(
    tmp_path: Path, other: str, said: str
) -> None:
    videos = thirty(tmp_path, 4, other)
    with pytest.raises(SourceError, match=said):
        check_pictures(tmp_path, videos, ThumbnailsParameters(), print)
