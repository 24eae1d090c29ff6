"""Strange input, wherever it may come from: a right outcome or one plain error, nothing else."""

import json
import math
import string
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, composite
from prefect import task
from pytest_httpserver import HTTPServer
from werkzeug import Response

from tests.small_channel import add_version
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.arguments import parse_command_line
from thumbtune.channel.listing import Video
from thumbtune.channel.news import ChannelsFileError, Memory, read_channels
from thumbtune.channel.quota import Spent
from thumbtune.channel.registry import DamagedRecordError, Registry
from thumbtune.channel.sources.folder.listing import folder_stamp, list_folder
from thumbtune.channel.sources.youtube import api as client
from thumbtune.channel.sources.youtube import listing as lists
from thumbtune.channel.sources.youtube.api import RetryableYouTubeError, YouTubeError, request_api
from thumbtune.channel.sources.youtube.feed import FeedError, newest_videos
from thumbtune.channel.sources.youtube.listing import find_channel, list_channel
from thumbtune.clip.features import FeatureStore
from thumbtune.data import thumbnails
from thumbtune.data.thumbnails import ThumbnailStore
from thumbtune.errors import SourceError
from thumbtune.parameters import ThumbnailsParameters, TrainParameters
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import Stages, content_key

Result = TypeVar("Result")

quick = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

strange_text = st.text(st.characters(exclude_categories=[]), max_size=20) | st.sampled_from(
    ["\0", "\ud800", "\u2028", "../..", "/etc/passwd", "~nobody", "x" * 5000, "P1Y", "PT1E9S", "é"]
)
strange_number = (
    st.integers(-(10**400), 10**400)
    | st.floats()
    | st.sampled_from([10**400, -1, 2**63, 1e308, math.inf, math.nan])
)
strange = st.recursive(
    st.none() | st.booleans() | strange_number | strange_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strange_text, inner, max_size=3),
    max_leaves=6,
)


def attempt(call: Callable[[], Result], *errors: type[BaseException]) -> tuple[Result | None, str]:
    """What a call gives, or None and what one of the plain errors says."""
    try:
        return call(), ""
    except errors as error:
        return None, str(error)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def paths_of(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every node of a JSON value."""
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict | list):
        children = value.items() if isinstance(value, dict) else enumerate(value)
    return [here, *(path for key, child in children for path in paths_of(child, (*here, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@composite
def spoiled(draw: DrawFn, value: Any) -> Any:
    """A JSON value with something strange in place of one of its nodes."""
    return replaced(value, draw(st.sampled_from(paths_of(value))), draw(strange))


ROW = {"id": "a", "title": "T", "image": "a.jpg", "duration": "PT5M", "publishedAt": "2024-05-01"}
INFO = {"id": "a", "title": "T", "duration": 300, "upload_date": "20240131", "live_status": "no"}
INFO |= {"_type": "video"}


def list_file(folder: Path, name: str, content: bytes) -> list[Video]:
    """What a folder of one file lists; none if it is refused by the plain error."""
    for old in folder.iterdir():
        old.unlink()
    (folder / name).write_bytes(content)
    listed, said = attempt(lambda: list_folder(folder), SourceError)
    videos = listed[0] if listed else []
    assert listed or name in said
    for video in videos:
        Video.model_validate_json(video.model_dump_json())  # it can be stored
        assert 0 <= (video.duration_seconds or 0) < math.inf
    return videos


@quick
@given(rows=st.lists(spoiled(ROW), max_size=3), lines=st.booleans())
def test_a_manifest_with_anything_in_place_of_any_value(
    tmp_path: Path, rows: list[Any], lines: bool
) -> None:
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    list_file(tmp_path, f"manifest.json{'l' if lines else ''}", text.encode())


@quick
@given(info=spoiled(INFO))
def test_a_yt_dlp_description_with_anything_in_place_of_any_value(
    tmp_path: Path, info: Any
) -> None:
    list_file(tmp_path, "v.info.json", json.dumps(info).encode())


NO_LISTS = (b"1", b"true", b'"title"', b"null", b"{}")
JSON_OF_STRANGERS = st.sampled_from(
    [nested(100_000).encode(), b'{"a":' * 5000, b"1" * 5000, b"\xef\xbb\xbf[]", b'["\\ud800"]', b""]
)


@quick
@given(
    content=st.binary(max_size=200) | JSON_OF_STRANGERS | st.sampled_from(NO_LISTS),
    name=st.sampled_from(["manifest.json", "manifest.jsonl", "manifest.csv", "v.info.json"]),
)
def test_a_file_of_a_folder_with_any_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    list_file(tmp_path, name, content)


@quick
@given(
    cells=st.lists(st.lists(strange_text | st.just("y" * 200_000), max_size=6), max_size=3),
    quote=st.sampled_from(["", '"']),
)
def test_a_csv_manifest_with_any_cells(tmp_path: Path, cells: list[list[str]], quote: str) -> None:
    lines = [",".join(ROW), *(",".join(f"{quote}{cell}{quote}" for cell in row) for row in cells)]
    content = "\n".join(lines).encode(errors="surrogatepass")
    list_file(tmp_path, "manifest.csv", content)


def test_a_folder_in_place_of_a_file_and_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(SourceError, match=r"manifest\.json: cannot be read \(Is a directory\)"):
        list_folder(tmp_path)
    (tmp_path / "manifest.json").rmdir()
    named = tmp_path / b"caf\xe9.info.json".decode("utf-8", "surrogateescape")
    named.write_text(json.dumps(INFO))
    with pytest.raises(SourceError, match=r"is not UTF-8\. Rename it"):
        list_folder(tmp_path)
    assert folder_stamp(tmp_path)


def test_a_title_may_hold_any_line_separator_but_the_line_feed(tmp_path: Path) -> None:
    title = "one\u2028two\x85three"
    line = json.dumps({**ROW, "title": title}, ensure_ascii=False)
    [video, _] = list_file(tmp_path, "manifest.jsonl", f"{line}\r\n{line}\n".encode())
    assert video.title == title


durations = st.text("PTYMDHS0123456789.-+,E ", max_size=12) | strange_text


@quick
@given(text=durations)
def test_any_duration_of_youtube_is_some_seconds_or_unknown(text: str) -> None:
    seconds = lists._seconds(text)
    assert seconds is None or math.isfinite(seconds)


CHANNEL = {
    "items": [
        {
            "id": "UC1",
            "snippet": {"title": "T", "customUrl": "@tester"},
            "contentDetails": {"relatedPlaylists": {"uploads": "UU1"}},
        }
    ],
    "etag": "e",
}
PLAYLIST = {
    "items": [
        {"contentDetails": {"videoId": id_}, "status": {"privacyStatus": "public"}} for id_ in "ab"
    ],
    "nextPageToken": "",
    "etag": "e",
}
SEARCH = {
    "items": [{"id": {"kind": "youtube#video", "videoId": id_}} for id_ in "ab"],
    "nextPageToken": "",
}
VIDEOS = {
    "items": [
        {
            "id": id_,
            "snippet": {
                "title": "T",
                "liveBroadcastContent": "none",
                "publishedAt": "2024-05-01T12:00:00Z",
                "thumbnails": {"high": {"url": "https://i.ytimg.com/a.jpg", "width": 480}},
                "description": "D",
            },
            "contentDetails": {"duration": "PT10M"},
            "status": {"privacyStatus": "public"},
        }
        for id_ in "ab"
    ]
}
ANSWERS = {"channels": CHANNEL, "playlistItems": PLAYLIST, "search": SEARCH, "videos": VIDEOS}


@pytest.mark.slow
@settings(quick, max_examples=120)
@given(data=st.data(), endpoint=st.sampled_from(list(ANSWERS)))
def test_an_answer_of_youtube_with_anything_in_place_of_any_node(
    workspace: Workspace,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
    endpoint: str,
) -> None:
    bad = data.draw(spoiled(ANSWERS[endpoint]))
    monkeypatch.setenv("YOUTUBE_API_KEY", "key")
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_API_URL", httpserver.url_for(""))
    httpserver.clear()
    for name, body in ANSWERS.items():
        text = json.dumps(bad if name == endpoint else body)
        httpserver.expect_request(f"/{name}").respond_with_data(text, headers={"Retry-After": "0"})
    calls: Counter[str] = Counter()

    def call(name: str, params: client.Params) -> dict[str, Any]:
        calls[name] += 1
        return request_api(workspace, name, params, daily_quota=10**9)

    for _ in range(2):  # the second time the first time's answers are stored
        plain = (SourceError, YouTubeError, RetryableYouTubeError)
        way: Any = "search" if endpoint == "search" else "uploads"
        listed, said = attempt(
            lambda way=way: list_channel(call, find_channel(call, "@tester"), way), *plain
        )
        if listed is None:
            assert endpoint in said or said.startswith("channel: ")
            continue
        videos, dropped = listed.videos, listed.dropped
        asked = len(bad.get("items", [])) if endpoint in ("playlistItems", "search") else 2
        del dropped["listed twice"]  # a page token may bring the same page again
        assert len(videos) + dropped.total() <= asked
        for video in videos:
            Video.model_validate_json(video.model_dump_json())
            assert "file" not in video.thumbnails  # no answer names a file of this machine
    assert max(calls.values()) <= 2 * lists.IDLE_PAGES


@pytest.mark.parametrize("extra", [nested(500), '"\\ud800"', nested(100_000), '{"a":1,"a":2}'])
def test_what_an_answer_holds_beside_what_is_used_changes_nothing(
    workspace: Workspace, youtube: YouTubeServer, extra: str
) -> None:
    body = json.dumps(CHANNEL)[:-1] + f', "extra": {extra}}}'
    youtube.answer_next(body)
    answer, said = attempt(
        lambda: request_api(workspace, "channels", {"forHandle": "@tester"}, daily_quota=10),
        RetryableYouTubeError,
    )
    if answer is None:
        assert said.startswith("YouTube channels: the answer is no")
    else:
        assert answer["items"] == CHANNEL["items"]


@pytest.mark.parametrize("etag", ["é", "😱", "a b", "a\nX-Evil: 1", ""])
def test_an_etag_that_cannot_be_sent_is_not(
    workspace: Workspace, youtube: YouTubeServer, etag: str
) -> None:
    youtube.add_channel([make_video(0)])
    for _ in range(2):
        youtube.answer_next(json.dumps({**CHANNEL, "etag": etag}))
        request_api(workspace, "channels", {"forHandle": "@tester"}, daily_quota=10)
    assert "If-None-Match" not in youtube.requests[-1].headers


BOMB = '<!DOCTYPE f [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">'
    for before, name in zip(string.ascii_lowercase, string.ascii_lowercase[1:10], strict=False)
)
FEED = '<feed xmlns:yt="http://www.youtube.com/xml/schemas/2015"><yt:videoId>v1</yt:videoId></feed>'
FEEDS = {
    "entities that grow": f"{BOMB}]><f>&j;</f>".encode(),
    "a file of this machine": b'<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]><f>&x;</f>',
    "a bomb in UTF-16": f"{BOMB}]><f>&j;</f>".encode("utf-16"),
    "an unknown encoding": b'<?xml version="1.0" encoding="nonsense"?><feed/>',
    "an encoding of many bytes": b'<?xml version="1.0" encoding="gb18030"?><feed/>',
    "a nul": b"<feed>\0</feed>",
    "nothing": b"",
    "elements without end": b"<a>" * 50_000,
}


def read_feed(httpserver: HTTPServer, patch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    patch.setenv("THUMBTUNE_YOUTUBE_FEED_URL", httpserver.url_for("/feed"))
    httpserver.clear()
    httpserver.expect_request("/feed").respond_with_response(Response(content))
    return newest_videos("UC1")


@pytest.mark.parametrize("kind", FEEDS)
def test_a_feed_that_is_none_is_refused(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with pytest.raises(FeedError, match=r"no XML|document type"):
        read_feed(httpserver, monkeypatch, FEEDS[kind])


@quick
@given(cut=st.integers(0, len(FEED)), put=st.binary(max_size=5))
def test_a_feed_that_is_cut_or_spoiled_is_ids_or_the_error(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, cut: int, put: bytes
) -> None:
    content = FEED.encode()
    for spoilt in (content[:cut], content[:cut] + put + content[cut:]):
        try:
            assert len(read_feed(httpserver, monkeypatch, spoilt)) <= 1
        except FeedError:
            continue


any_json = strange.map(lambda value: json.dumps(value).encode())
anything = st.binary(max_size=100) | JSON_OF_STRANGERS | any_json


@pytest.mark.slow
@quick
@given(data=st.data())
def test_a_damaged_record_of_the_registry_is_an_error_that_names_it(
    workspace: Workspace, data: st.DataObject
) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    if not registry.versions():
        add_version(workspace, count=4)
    kind = data.draw(st.sampled_from(["versions", "decisions"]))
    file = workspace.root / registry.path / kind / "000001.json"
    whole = file.read_bytes()
    spoilt = spoiled(json.loads(whole)).map(lambda value: json.dumps(value).encode())
    file.write_bytes(data.draw(anything | spoilt))
    records, said = attempt(lambda: [registry.versions(), registry.decisions()], DamagedRecordError)
    file.write_bytes(whole)
    assert records or f"{file} is damaged" in said


def test_a_stranger_among_the_records_is_not_counted(workspace: Workspace) -> None:
    version = add_version(workspace, count=4)
    registry = Registry(workspace, "youtube", "@tester")
    workspace.write(f"{registry.path}/decisions/copy of 000001.json", b"{}")
    assert registry.decide(version.number, None, "tried").number == 2
    assert len(registry.decisions()) == 2


@task(name="counted", persist_result=True, result_serializer="json", cache_key_fn=content_key(1))
def counted(workspace: Workspace) -> Table:
    """A step whose result is spoiled."""
    return workspace.write_table("videos", [Video(id="a", title="T", thumbnails={})])


@pytest.mark.usefixtures("prefect_harness")
@settings(quick, max_examples=15)
@given(data=st.data())
def test_a_damaged_result_of_prefect_is_made_again(
    workspace: Workspace, prefect_results: Path, data: st.DataObject
) -> None:
    def run() -> Table:
        return Stages(workspace, refresh=False).run(counted, workspace)

    table = run()
    newest = max(prefect_results.glob("counted-v1-*"), key=lambda file: file.stat().st_mtime_ns)
    stored = json.loads(newest.read_bytes())
    value = json.loads(stored["result"])
    inner = spoiled(value).map(lambda v: json.dumps({**stored, "result": json.dumps(v)}).encode())
    newest.write_bytes(data.draw(anything | inner | st.just(newest.read_bytes()[:-9])))
    again = run()
    assert (again.path, again.fingerprint) == (table.path, table.fingerprint)


@quick
@given(content=anything)
def test_a_damaged_index_of_thumbnails_is_no_picture(workspace: Workspace, content: bytes) -> None:
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    workspace.write(thumbnails._index_path("https://i.ytimg.com/a.jpg"), content)
    assert store._stored("https://i.ytimg.com/a.jpg") is None


@pytest.mark.slow
@settings(quick, max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_of_a_feature_file_is_noticed(
    workspace: Workspace, place: float, bit: int
) -> None:
    store = FeatureStore(workspace, "features/a")
    features = {"a": torch.arange(4.0).reshape(1, 4), "b": torch.ones(3, 4)}
    store.write(features)
    [file] = workspace.root.glob("features/a/*.safetensors")
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    found = store.read(["a", "b"])
    assert all(torch.equal(found[key], features[key]) for key in found)
    assert found or not file.exists()


@quick
@given(content=anything)
def test_what_a_run_remembers_is_known_or_begun_anew(workspace: Workspace, content: bytes) -> None:
    workspace.write("memory.json", content)
    assert Spent.read(workspace, "memory.json").units >= 0
    assert Memory.read(workspace, "memory.json")
    assert client._stored_answer(workspace, "memory.json", "channels") is None


CHANNELS = {"defaults": {"training": {"epochs": 3}}, "channels": [{"channel": "@a"}, "@b"]}
YAMLS = st.sampled_from(
    [
        nested(5000).encode(),
        b"channels: [2024-99-99]",
        b"channels: &a [*a]",
        b"channels: [{? [a] : b}]",
        b"? {a: b}\n: c",
        b"channels: ['@a', '\xff']",
        b"a: &a [x,x]\nb: &b [*a,*a]\nchannels: [*b]",
        b"channels: ['@a']\ndefaults: text",
        b"channels: ['@a']\ndefaults: [1]",
        b"!!python/object/apply:os.system ['true']",
    ]
)


@pytest.mark.slow
@quick
@given(
    content=st.binary(max_size=60)
    | YAMLS
    | spoiled(CHANNELS).map(
        lambda v: yaml.safe_dump(v, allow_unicode=True).encode(errors="replace")
    )
)
def test_a_file_of_channels_with_anything_in_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "channels.yaml"
    file.write_bytes(content)
    channels, said = attempt(lambda: read_channels(file), ChannelsFileError)
    assert said.startswith(f"channels: {file}") if channels is None else not said


PARAMETERS = json.loads(TrainParameters(channel="@a").model_dump_json())
NAMES = st.sampled_from(["cli_args", "self", "model_cls", "_env_file", "cli_cmd_method_name", "é"])


@pytest.mark.slow
@settings(quick, max_examples=40)
@example(content=b'{"\\ud800": null}')  # half a character, which no terminal can show
@given(
    content=anything
    | spoiled(PARAMETERS).map(lambda v: json.dumps(v).encode())
    | NAMES.map(lambda name: json.dumps({"channel": "@a", name: "x"}).encode())
)
def test_a_file_of_parameters_with_anything_in_it_is_taken_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    file = tmp_path / "parameters.json"
    file.write_bytes(content)
    arguments = ["--parameters", str(file)]
    found, code = attempt(lambda: parse_command_line(TrainParameters, arguments), SystemExit)
    said = capsys.readouterr().err
    assert (code, bool(said)) == (("", False) if found else ("2", True))
    assert "Traceback" not in said
