"""Listing a channel through the YouTube Data API, against a stand-in over HTTP."""

import json
import logging
import time
import traceback
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.blocks.system import Secret

from tasks.parameters import VideosParameters
from tasks.secrets import MissingSecretError, read_secret
from tasks.sources import Listing, SourceError, Video
from tasks.sources.youtube import (
    ChannelNotFoundError,
    RetryableYouTubeError,
    YouTubeError,
    channel_query,
    request_api,
)
from tasks.videos import end_listing, fetch_videos, keep_long_form, list_videos
from tasks.workspace import Workspace
from tests.youtube_server import YouTubeServer, make_video


def listing(workspace: Workspace, channel: str = "@tester", **parameters: Any) -> Listing:
    settings = VideosParameters.model_validate(parameters)

    @flow(name="list")
    def list_flow() -> Listing:
        found = list_videos(workspace, "youtube", channel, settings)
        end_listing(workspace, "youtube", channel, settings)
        return found

    return list_flow()


def endpoints(youtube: YouTubeServer) -> list[str]:
    return [request.path.rpartition("/")[2] for request in youtube.requests]


CHANNEL_ID = "UC" + "x" * 22


@pytest.mark.parametrize(
    ("channel", "query"),
    [
        (CHANNEL_ID, {"id": CHANNEL_ID}),
        ("@tester", {"forHandle": "@tester"}),
        ("https://www.youtube.com/@tester", {"forHandle": "@tester"}),
        ("https://www.youtube.com/@tester/videos?view=0", {"forHandle": "@tester"}),
        (f"youtube.com/channel/{CHANNEL_ID}", {"id": CHANNEL_ID}),
        (f"https://m.youtube.com/channel/{CHANNEL_ID}/about", {"id": CHANNEL_ID}),
    ],
)
def test_a_channel_is_an_id_a_handle_or_a_url(channel: str, query: dict[str, str]) -> None:
    assert channel_query(channel) == query


@pytest.mark.parametrize("channel", ["tester", "UCshort", "https://example.org/@tester", "@"])
def test_anything_else_is_an_error_that_names_the_field_and_the_mend(channel: str) -> None:
    with pytest.raises(SourceError, match=r"channel: .* copy its address or its @handle"):
        channel_query(channel)


def test_121_videos_cost_at_most_8_units(workspace: Workspace, youtube: YouTubeServer) -> None:
    youtube.add_channel([make_video(n) for n in range(121)])
    assert len(listing(workspace).videos) == 121
    assert youtube.units <= 8


def test_the_articles_search_finds_the_same_videos_for_303_units(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(n) for n in range(121)])
    by_search = listing(workspace, listing="search").videos
    units = youtube.units
    assert by_search == listing(workspace).videos
    assert units == 1 + 3 * 100 + 3
    assert set(endpoints(youtube)[1:4]) == {"search"}


def test_a_video_has_its_title_duration_date_and_thumbnails_widest_first(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(3, title="  A & B 😱 ")])
    [video] = listing(workspace).videos
    assert (video.title, video.duration_seconds) == ("A & B 😱", 601)
    assert video.published_at == "2020-01-04T12:00:00Z"
    assert list(video.thumbnails) == ["maxres", "high", "default"]


def test_each_video_that_is_of_no_use_is_counted_with_its_reason(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel(
        [
            make_video(0),
            make_video(1, duration="PT2M59S"),
            make_video(2, duration="PT3M"),
            make_video(3, privacy="private"),
            make_video(4, deleted=True),
            make_video(5, live="live"),
            make_video(6, live="upcoming", duration="P0D"),
            make_video(7, privacy="unlisted"),
            make_video(8, title=" "),
        ]
    )
    found = listing(workspace)
    assert [video.id for video in found.videos] == ["video-00002", "video-00000"]
    assert found.dropped == {
        "unlisted": 1,
        "upcoming": 1,
        "live now": 1,
        "deleted": 1,
        "private": 1,
        "shorter than 180 s": 1,
        "no title": 1,
    }


@given(st.lists(st.floats(0, 10_000)), st.floats(0, 10_000))
def test_every_video_is_either_kept_or_counted(durations: list[float], least: float) -> None:
    videos = [
        Video(id=str(n), title="t", thumbnails={"high": "u"}, duration_seconds=seconds)
        for n, seconds in enumerate(durations)
    ]
    kept, dropped = keep_long_form(videos * 2, least)
    assert len(kept) + dropped.total() == 2 * len(durations)
    assert all((video.duration_seconds or 0) >= least for video in kept)


def test_a_channel_with_nothing_of_use_is_an_error_that_counts(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(n, duration="PT30S") for n in range(3)])
    with pytest.raises(SourceError, match=r"none of 3 videos .*3 shorter than 180 s.*lower videos"):
        listing(workspace)


def test_a_repeated_page_token_does_not_go_round_for_ever(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    youtube.repeat_page_token = True
    assert len(listing(workspace).videos) == 50
    assert endpoints(youtube).count("playlistItems") == 2


def test_an_unknown_channel_fails_at_once(workspace: Workspace, youtube: YouTubeServer) -> None:
    with pytest.raises(ChannelNotFoundError, match="YouTube knows no channel '@nobody'"):
        listing(workspace, "@nobody")
    assert len(youtube.requests) == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, "backendError"), (503, ""), (429, ""), (403, "rateLimitExceeded")],
)
def test_a_passing_failure_is_retried(
    workspace: Workspace, youtube: YouTubeServer, status: int, reason: str
) -> None:
    youtube.add_channel([make_video(0)])
    youtube.fail_next(status, reason, times=3)
    assert len(listing(workspace).videos) == 1
    assert endpoints(youtube) == ["channels"] * 4 + ["playlistItems", "videos"]


def test_retries_are_bounded(workspace: Workspace, youtube: YouTubeServer) -> None:
    youtube.fail_next(503, times=50)
    with pytest.raises(RetryableYouTubeError, match=r"YouTube channels: fails now \(HTTP 503"):
        listing(workspace)
    assert len(youtube.requests) == 5


@pytest.mark.parametrize("body", ['{"items": [', "<html>", "[]", ""])
def test_an_answer_that_is_no_whole_json_object_is_retried(
    workspace: Workspace, youtube: YouTubeServer, body: str
) -> None:
    youtube.add_channel([make_video(0)])
    youtube.answer_next(body)
    assert len(listing(workspace).videos) == 1


def test_a_server_that_is_not_there_is_retried_and_then_named(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_API_URL", "http://127.0.0.1:9")
    with pytest.raises(RetryableYouTubeError, match=r"channels: no answer \(ConnectionError\)"):
        listing(workspace)


def test_retry_after_is_honoured(workspace: Workspace, youtube: YouTubeServer) -> None:
    youtube.add_channel([make_video(0)])
    youtube.fail_next(429, headers={"Retry-After": "1"})
    started = time.monotonic()
    listing(workspace)
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("status", "reason", "mend"),
    [
        (403, "quotaExceeded", "filled again at midnight Pacific time"),
        (403, "dailyLimitExceeded", "filled again at midnight Pacific time"),
        (403, "accessNotConfigured", "YouTube Data API v3 is enabled"),
        (400, "keyInvalid", "Set YOUTUBE_API_KEY"),
        (403, "forbidden", "Set YOUTUBE_API_KEY"),
    ],
)
def test_a_failure_for_good_is_not_retried_and_tells_the_mend(
    workspace: Workspace, youtube: YouTubeServer, status: int, reason: str, mend: str
) -> None:
    youtube.fail_next(status, reason)
    with pytest.raises(YouTubeError, match=mend):
        listing(workspace)
    assert len(youtube.requests) == 1


def test_what_has_not_changed_is_not_sent_again(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    first = listing(workspace)
    assert youtube.not_modified == 0
    asked = len(youtube.requests)
    second = listing(workspace)
    assert second.videos == first.videos
    assert youtube.not_modified == len(youtube.requests) - asked == asked - 1  # but the channel's
    assert second.work == f"0 answers fetched, {youtube.not_modified} unchanged"


def test_a_stored_answer_that_was_damaged_is_asked_for_again(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(0)])
    first = listing(workspace)
    for file in (workspace.root / "youtube").iterdir():
        file.write_text('{"etag": "x", "bo')
    assert listing(workspace) == first


def test_a_wrong_key_is_refused_with_the_mend(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOUTUBE_API_KEY", "wrong")
    with pytest.raises(YouTubeError, match=r"the key was refused .*Set YOUTUBE_API_KEY"):
        listing(workspace)


def test_without_a_key_the_error_names_both_places_for_it(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YOUTUBE_API_KEY")
    with pytest.raises(MissingSecretError, match=r"variable YOUTUBE_API_KEY, .*'youtube-api-key'"):
        listing(workspace)


def test_the_key_may_be_a_prefect_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOUTUBE_API_KEY", raising=False)
    Secret(value="from-the-block").save("youtube-api-key", overwrite=True)  # type: ignore[call-arg]
    try:
        assert read_secret("YOUTUBE_API_KEY") == "from-the-block"
    finally:
        Secret.delete("youtube-api-key")


def test_the_key_is_sent_to_no_plain_http_server_elsewhere(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_API_URL", "http://example.org/youtube/v3")
    with pytest.raises(YouTubeError, match="must be https"):
        listing(workspace)


def test_the_key_is_in_no_url_log_traceback_file_or_result(
    workspace: Workspace,
    youtube: YouTubeServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    prefect_results: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    youtube.add_channel([make_video(n) for n in range(60)])
    parameters = VideosParameters()
    fetch_videos(workspace, "youtube", "@tester", parameters)
    end_listing(workspace, "youtube", "@tester", parameters)
    youtube.fail_next(503, times=50)
    with pytest.raises(RetryableYouTubeError) as failure:
        fetch_videos.with_options(refresh_cache=True)(workspace, "youtube", "@tester", parameters)
    assert youtube.requests
    assert all(youtube.key not in request.url for request in youtube.requests)
    assert youtube.key not in caplog.text
    assert youtube.key not in "".join(traceback.format_exception(failure.value))
    captured = capfd.readouterr()
    assert youtube.key not in captured.out + captured.err
    written = [file for root in (workspace.root, prefect_results) for file in root.rglob("*")]
    contents = [file.read_bytes() for file in written if file.is_file()]
    assert len(contents) > 5
    assert all(youtube.key.encode() not in content for content in contents)


@pytest.fixture(scope="module")
def discovery() -> dict[str, Any]:
    """Google's own description of the YouTube Data API."""
    folder = files("googleapiclient.discovery_cache.documents")
    return json.loads((folder / "youtube.v3.json").read_text())


def as_json_schema(discovery: dict[str, Any], name: str) -> dict[str, Any]:
    text = json.dumps(discovery["schemas"]).replace('"$ref": "', '"$ref": "#/$defs/')
    return {"$ref": f"#/$defs/{name}", "$defs": json.loads(text)}


@pytest.mark.parametrize(
    ("endpoint", "params", "schema"),
    [
        ("channels", {"part": "contentDetails", "forHandle": "@tester"}, "ChannelListResponse"),
        (
            "playlistItems",
            {"part": "contentDetails,status", "playlistId": "UU" + "x" * 22, "maxResults": 50},
            "PlaylistItemListResponse",
        ),
        ("search", {"part": "id", "channelId": CHANNEL_ID}, "SearchListResponse"),
        ("videos", {"part": "snippet,status", "id": "video-00001"}, "VideoListResponse"),
    ],
)
def test_the_stand_in_answers_as_googles_discovery_document_says(
    workspace: Workspace,
    youtube: YouTubeServer,
    discovery: dict[str, Any],
    endpoint: str,
    params: dict[str, Any],
    schema: str,
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    body = request_api(workspace, endpoint, params, daily_quota=10_000)
    assert body["items"]
    jsonschema.validate(body, as_json_schema(discovery, schema))
    known = set(discovery["schemas"][schema]["properties"])
    item = discovery["schemas"][schema]["properties"]["items"]["items"]["$ref"]
    assert set(body) <= known
    assert set(body["items"][0]) <= set(discovery["schemas"][item]["properties"])


@pytest.mark.parametrize("way", ["uploads", "search"])
def test_the_client_asks_only_for_what_googles_discovery_document_knows(
    workspace: Workspace, youtube: YouTubeServer, discovery: dict[str, Any], way: str
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    listing(workspace, listing=way)
    for request in youtube.requests:
        endpoint = request.path.rpartition("/")[2]
        known = discovery["resources"][endpoint]["methods"]["list"]["parameters"]
        assert set(request.args) <= set(known)
        if "maxResults" in request.args:
            bounds = known["maxResults"]
            asked = int(request.args["maxResults"])
            assert int(bounds["minimum"]) <= asked <= int(bounds["maximum"])
        if "order" in request.args:
            assert request.args["order"] in known["order"]["enum"]


def test_the_stand_in_checks_the_key(youtube: YouTubeServer) -> None:
    answer = requests.get(f"{youtube.api_url}/channels", params={"forHandle": "@a"}, timeout=5)
    assert answer.status_code == 400
