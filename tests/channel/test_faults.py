"""What can go wrong between here and YouTube's API: each fault at each endpoint."""

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Request, Response

from tests.channel.test_youtube import listing_in_a_run as listing
from tests.youtube_server import YouTubeServer, error_body, make_video
from thumbtune.channel.sources.youtube import api as client
from thumbtune.channel.sources.youtube import listing as lists
from thumbtune.channel.sources.youtube.api import RetryableYouTubeError, YouTubeError, request_api
from thumbtune.channel.sources.youtube.feed import FeedError, newest_videos
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_harness")

WAYS = {"channels": "uploads", "playlistItems": "uploads", "videos": "uploads", "search": "search"}
"""Endpoint → the way of listing that asks it."""


def reset(request: Request) -> Response:
    """Break the connection at once, as a firewall does: the client gets a TCP reset."""
    connection = request.environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Path(os.devnull).open("wb") as nowhere:  # Werkzeug holds the socket, so close() would wait
        os.dup2(nowhere.fileno(), connection.fileno())
    return Response("")


def silence(request: Request) -> Response:
    time.sleep(4)
    return Response("{}")


def drip(request: Request) -> Response:
    def spaces() -> Iterator[bytes]:
        for _ in range(80):
            time.sleep(0.05)
            yield b" "

    return Response(spaces())  # type: ignore[arg-type]


def cut_short(request: Request) -> Response:
    part = iter(['{"items": []}'])  # of a whole list, Werkzeug would set the length right
    return Response(part, headers={"Content-Length": "5000"})


def with_body(body: str, status: int = 200, **headers: str) -> Callable[[Request], Response]:
    return lambda request: Response(body, status, headers, content_type="application/json")


FAULTS = {
    "500": with_body(error_body(500, "backendError"), 500),
    "503 with Retry-After": with_body("<html>", 503, **{"Retry-After": "0"}),
    "429 with a date": with_body("", 429, **{"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}),
    "429 with nonsense": with_body("", 429, **{"Retry-After": "²soon"}),
    "a connection that is reset": reset,
    "no answer in time": silence,
    "an answer in drips": drip,
    "a body that breaks off": cut_short,
    "half a JSON object": with_body('{"items": [{"id"'),
    "JSON without end": with_body("[" * 200_000),
    "items that are no list": with_body('{"items": "many"}'),
    "an item without its fields": with_body('{"items": [{}]}'),
    "a field of another type": with_body('{"items": [{"id": 5, "contentDetails": []}]}'),
    "an error that is no object": with_body('{"error": "sorry"}', 500),
}


SLOW = {"no answer in time", "an answer in drips"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Where it matters: on a busy machine an answer may take as long as a short limit."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("fault", "no answer in time") in SLOW:
        monkeypatch.setattr(client, "TIMEOUT", (2, 2))
        monkeypatch.setattr(client, "TOTAL", 3)


@pytest.fixture
def channel(youtube: YouTubeServer) -> list[dict[str, Any]]:
    videos = [make_video(n) for n in range(60)]
    youtube.add_channel(videos)
    return videos


def asked(youtube: YouTubeServer) -> list[str]:
    return [request.full_path for request in youtube.requests]


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("endpoint", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_costs_one_more_call_and_no_video(
    workspace: Workspace, youtube: YouTubeServer, endpoint: str, fault: str
) -> None:
    youtube.faults_of[endpoint].append(FAULTS[fault])
    assert len(listing(workspace, listing=WAYS[endpoint]).videos) == 60
    again = [url for url in asked(youtube) if asked(youtube).count(url) > 1]
    assert len(again) == 2
    assert again[0] == again[1]
    assert f"/{endpoint}?" in again[0]


STOPS: dict[str, tuple[Callable[[Request], Response], type[Exception], str]] = {
    "the quota is used up": (
        with_body(error_body(403, "quotaExceeded"), 403),
        YouTubeError,
        "midnight Pacific time; what was fetched is kept",
    ),
    "the key is revoked": (
        with_body(error_body(400, "keyExpired"), 400),
        YouTubeError,
        "Set YOUTUBE_API_KEY to a key",
    ),
    "the server is down": (
        with_body("", 503),
        RetryableYouTubeError,
        "fails now .* Run again later",
    ),
    "the answers are not as documented": (
        with_body('{"items": [{"id": "x"}]}'),
        RetryableYouTubeError,
        r"not as documented: items\.0\.",
    ),
}


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("way", ["uploads", "search"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_run_that_stops_after_the_list_goes_on_there(
    workspace: Workspace, youtube: YouTubeServer, way: str, stop: str
) -> None:
    fault, error, said = STOPS[stop]
    youtube.faults_of["videos"].extend([None, *[fault] * 5])  # 5: the first try and all others
    with pytest.raises(error, match=f"YouTube videos: .*{said}"):
        listing(workspace, listing=way)
    before = asked(youtube)
    youtube.requests.clear()
    youtube.faults_of.clear()
    assert len(listing(workspace, listing=way).videos) == 60
    assert set(before) & set(asked(youtube)) == {before[-1]}  # only what was not answered


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("endpoint", ["playlistItems", "search"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_run_that_stops_in_the_list_reads_its_pages_again_and_nothing_else(
    workspace: Workspace, youtube: YouTubeServer, endpoint: str, stop: str
) -> None:
    fault, error, said = STOPS[stop]
    youtube.faults_of[endpoint].extend([None, *[fault] * 10])  # 10: the list is begun anew once
    way = WAYS[endpoint]
    with pytest.raises(error, match=f"YouTube {endpoint}: .*{said}"):
        listing(workspace, listing=way)
    youtube.requests.clear()
    youtube.faults_of.clear()
    assert len(listing(workspace, listing=way).videos) == 60
    assert [url.partition("?")[0].rpartition("/")[2] for url in asked(youtube)] == [
        *[endpoint] * 2,
        *["videos"] * 2,
    ]
    assert youtube.not_modified == 1  # the first page, which had been read


@pytest.mark.usefixtures("channel")
def test_a_killed_run_goes_on_too_but_a_finished_one_is_asked_anew(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.faults_of["videos"].extend([None, with_body(error_body(403, "quotaExceeded"), 403)])
    with pytest.raises(YouTubeError):
        listing(workspace)
    assert listing(workspace).work == (
        "1 units of quota: 1 answers fetched, 0 unchanged, 3 kept from a list begun before"
    )
    assert listing(workspace).work == "4 units of quota: 0 answers fetched, 4 unchanged"


@pytest.mark.usefixtures("channel")
def test_what_an_unfinished_run_left_long_ago_is_asked_for_anew(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.faults_of["videos"].append(with_body(error_body(403, "quotaExceeded"), 403))
    with pytest.raises(YouTubeError):
        listing(workspace)
    [begun] = (workspace.root / "youtube-unfinished").iterdir()
    left = json.loads(begun.read_bytes())
    assert left["has_pages"]
    long_ago = (datetime.now(UTC) - timedelta(hours=49)).isoformat()
    begun.write_text(json.dumps({**left, "begun": long_ago}))
    assert listing(workspace).work == "4 units of quota: 2 answers fetched, 2 unchanged"


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("way", ["uploads", "search"])
def test_page_tokens_without_end_end_when_nothing_new_comes(
    workspace: Workspace, youtube: YouTubeServer, way: str
) -> None:
    youtube.endless_page_tokens = True
    assert len(listing(workspace, listing=way).videos) == 60


def test_a_list_that_brings_new_videos_for_ever_is_an_error(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PAGES", 3)
    youtube.add_channel([make_video(n) for n in range(200)])
    with pytest.raises(YouTubeError, match="playlistItems: the list does not end after 3 pages"):
        listing(workspace)


def test_an_answer_larger_than_any_real_one_is_refused(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LARGEST", 1000)
    youtube.faults_of["channels"].append(with_body(" " * 1001))
    with pytest.raises(YouTubeError, match="the answer is larger than 1,000 bytes"):
        listing(workspace)


def test_the_key_is_not_sent_on_by_a_redirect(workspace: Workspace, youtube: YouTubeServer) -> None:
    there = {"Location": youtube.base + "/elsewhere"}
    youtube.faults_of["channels"].append(with_body("", 302, **there))
    with pytest.raises(YouTubeError, match=r"refused \(HTTP 302"):
        request_api(workspace, "channels", {"forHandle": "@tester"}, daily_quota=10)
    assert len(youtube.requests) == 1


def test_a_stored_answer_in_which_a_letter_was_changed_is_asked_for_again(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(0)])
    first = listing(workspace)
    title = first.videos[0].title
    for file in (workspace.root / "youtube").iterdir():
        file.write_text(file.read_text().replace(title, title.swapcase()))
    assert listing(workspace).videos == first.videos


@pytest.mark.parametrize("fault", ["items", "item", "field"])
def test_a_stored_answer_of_other_types_is_asked_for_again(
    workspace: Workspace, youtube: YouTubeServer, fault: str
) -> None:
    youtube.add_channel([make_video(0)])
    first = listing(workspace)
    bodies = {"items": {"items": 1}, "item": {"items": [1]}, "field": {"items": [{"id": 1}]}}
    for file in (workspace.root / "youtube").iterdir():
        file.write_text(json.dumps({**json.loads(file.read_bytes()), "body": bodies[fault]}))
    assert listing(workspace) == first


def test_a_feed_in_drips_is_given_up(
    youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thumbtune.channel.sources.youtube.feed.TOTAL", 0.3)
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_FEED_URL", youtube.api_url + "/channels")
    youtube.faults_of["channels"].append(drip)
    with pytest.raises(FeedError, match="TooSlowError"):
        newest_videos("UC" + "x" * 22)
