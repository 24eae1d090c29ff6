"""Listing a channel through the YouTube Data API, against a stand-in over HTTP."""

import json
import logging
import time
import traceback
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from google.api.error_reason_pb2 import ErrorReason
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.blocks.system import Secret

from tests.youtube_server import YouTubeServer, error_body, make_video
from thumbtune.channel.listing import Listing, Video
from thumbtune.channel.long_form import keep_long_form
from thumbtune.channel.secrets import MissingSecretError, read_secret
from thumbtune.channel.source import Request
from thumbtune.channel.sources.youtube.api import (
    ChannelNotFoundError,
    QuotaUsedUpError,
    RetryableYouTubeError,
    YouTubeError,
    request_api,
)
from thumbtune.channel.sources.youtube.listing import NoVideosError, channel_query
from thumbtune.channel.sources.youtube.refusals import KEY_MENDS
from thumbtune.channel.videos import end_listing, list_videos, none_left
from thumbtune.errors import SourceError
from thumbtune.parameters import VideosParameters
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.call_youtube import call_youtube
from thumbtune.tasks.fetch_videos import fetch_videos


def listing(
    workspace: Workspace,
    channel: str = "@tester",
    request: Request = request_api,
    **parameters: Any,
) -> Listing:
    settings = VideosParameters.model_validate(parameters)
    found = list_videos(workspace, "youtube", channel, settings, request)
    end_listing(workspace, "youtube", channel, settings)
    return found


@flow(name="list")
def listing_in_a_run(workspace: Workspace, **parameters: Any) -> Listing:
    """With Prefect's retries."""
    return listing(workspace, request=call_youtube, **parameters)


def ask_once(workspace: Workspace) -> dict[str, Any]:
    """One call, without Prefect's retries."""
    return request_api(workspace, "channels", {"forHandle": "@tester"}, daily_quota=10_000)


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


@pytest.mark.slow
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
            make_video(1, duration="PT3M"),
            make_video(2, duration="PT3M1S"),
            make_video(3, privacy="private"),
            make_video(4, deleted=True),
            make_video(5, live="live"),
            make_video(6, live="upcoming", duration="P0D"),
            make_video(7, privacy="unlisted"),
            make_video(8, title=" "),
            make_video(9, duration="P0D"),  # a stream that has just ended
        ]
    )
    found = listing(workspace)
    assert [video.id for video in found.videos] == ["video-00002", "video-00000"]
    assert found.dropped == {
        "unlisted": 1,
        "upcoming": 1,
        "live now": 1,
        "no length yet": 1,
        "deleted": 1,
        "private": 1,
        "of 180 s or shorter": 1,
        "no title": 1,
    }
    assert found.shorts == ["video-00001"]
    assert sorted(found.to_come) == ["video-00005", "video-00006", "video-00009"]


@given(st.lists(st.floats(0, 10_000)), st.floats(0, 10_000))
def test_every_video_is_either_kept_or_counted(durations: list[float], least: float) -> None:
    videos = [
        Video(id=str(n), title="t", thumbnails={"high": "u"}, duration_seconds=seconds)
        for n, seconds in enumerate(durations)
    ]
    kept, dropped = keep_long_form(videos * 2, least)
    assert len(kept) + dropped.total() == 2 * len(durations)
    assert all((video.duration_seconds or 0) > least or least == 0 for video in kept)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(180, ["PT3M1S"]), (179, ["PT3M", "PT3M1S"]), (0, ["PT0S", "PT2M59S", "PT3M", "PT3M1S"])],
)
def test_a_short_may_be_as_long_as_the_limit_and_179_is_the_articles_least_of_180(
    workspace: Workspace, youtube: YouTubeServer, limit: float, kept: list[str]
) -> None:
    durations = ["PT0S", "PT2M59S", "PT3M", "PT3M1S"]
    youtube.add_channel([make_video(n, duration=text) for n, text in enumerate(durations)])
    found = listing(workspace, min_duration_seconds=limit).videos
    assert [durations[int(video.id[-1])] for video in found] == kept[::-1]


NOTHING_OF_USE = {
    "shorts": (
        {"duration": "PT30S"},
        "none of 3 videos can be used (3 of 180 s or shorter). "
        "To keep the short ones, lower videos.min_duration_seconds.",
    ),
    "private": (
        {"privacy": "private"},
        "none of 3 videos can be used (3 private). "
        "Only public videos can be read: make some public, or choose another channel.",
    ),
    "streams": (
        {"live": "upcoming"},
        "none of 3 videos can be used (3 upcoming). Run again when the streams are over.",
    ),
    "titles": (
        {"title": " "},
        "none of 3 videos can be used (3 no title). Choose another channel.",
    ),
}


@pytest.mark.parametrize("kind", NOTHING_OF_USE)
def test_a_channel_with_nothing_of_use_is_an_error_that_counts_and_mends_the_reason(
    workspace: Workspace, youtube: YouTubeServer, kind: str
) -> None:
    changes, said = NOTHING_OF_USE[kind]
    youtube.add_channel([make_video(n, **changes) for n in range(3)])
    with pytest.raises(SourceError) as error:
        listing(workspace)
    assert str(error.value) == f"channel: {said}"


def test_several_reasons_have_several_mends_the_most_frequent_first() -> None:
    said = none_left("folder", Counter({"no title": 1, "of 60 s or shorter": 4, "upcoming": 2}))
    assert said.startswith("channel: none of 7 videos can be used (4 of 60 s or shorter, 2 upcom")
    places = [said.index(word) for word in ("min_duration_seconds", "are over", "field title")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hub", "the dataset has no rows. Choose another dataset."),
        ("folder", "the folder describes no videos. Add entries to its manifest"),
    ],
)
def test_a_source_without_videos_is_told_what_it_lacks(source: str, said: str) -> None:
    assert none_left(source, Counter()).startswith(f"channel: {said}")
    assert "min_duration" not in none_left(source, Counter())


@pytest.mark.parametrize("way", ["uploads", "search"])
def test_an_empty_channel_has_no_public_videos(
    workspace: Workspace, youtube: YouTubeServer, way: str
) -> None:
    """Its list of uploads is a 404 of YouTube's."""
    youtube.add_channel([])
    with pytest.raises(NoVideosError, match="channel: '@tester' has no public videos"):
        listing(workspace, listing=way)
    # of a list that is not found: whether the channel is there
    asked = {"uploads": ["channels", "playlistItems", "channels"], "search": ["channels", "search"]}
    assert endpoints(youtube) == asked[way]


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


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, "backendError"), (503, ""), (429, ""), (403, "rateLimitExceeded"), (409, "conflict")],
)
def test_a_passing_failure_is_retried(
    workspace: Workspace, youtube: YouTubeServer, status: int, reason: str
) -> None:
    youtube.add_channel([make_video(0)])
    youtube.fail_next(status, reason, times=3)
    assert len(listing_in_a_run(workspace).videos) == 1
    assert endpoints(youtube) == ["channels"] * 4 + ["playlistItems", "videos"]


@pytest.mark.usefixtures("prefect_harness")
def test_retries_are_bounded(workspace: Workspace, youtube: YouTubeServer) -> None:
    youtube.fail_next(503, times=50)
    with pytest.raises(RetryableYouTubeError, match=r"YouTube channels: fails now \(HTTP 503"):
        listing_in_a_run(workspace)
    assert len(youtube.requests) == 5


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("body", ['{"items": [', "<html>", "[]", ""])
def test_an_answer_that_is_no_whole_json_object_is_retried(
    workspace: Workspace, youtube: YouTubeServer, body: str
) -> None:
    youtube.add_channel([make_video(0)])
    youtube.answer_next(body)
    assert len(listing_in_a_run(workspace).videos) == 1


def test_a_server_that_is_not_there_is_retried_and_then_named(
    workspace: Workspace, youtube: YouTubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_API_URL", "http://127.0.0.1:9")
    with pytest.raises(RetryableYouTubeError, match=r"channels: no answer \(ConnectionError\)"):
        listing(workspace)


@pytest.mark.usefixtures("prefect_harness")
def test_retry_after_is_honoured(workspace: Workspace, youtube: YouTubeServer) -> None:
    youtube.add_channel([make_video(0)])
    youtube.fail_next(429, headers={"Retry-After": "1"})
    started = time.monotonic()
    listing_in_a_run(workspace)
    assert time.monotonic() - started >= 1


KEY_REFUSED = {
    (400, "badRequest", "API_KEY_INVALID"): "Set YOUTUBE_API_KEY to a key that exists",
    (400, "keyInvalid", ""): "Set YOUTUBE_API_KEY to a key that exists",
    (400, "keyExpired", ""): "The key has expired",
    (403, "forbidden", "API_KEY_HTTP_REFERRER_BLOCKED"): "application restrictions to None",
    (403, "forbidden", "API_KEY_IP_ADDRESS_BLOCKED"): "this machine's is not among them. Add it",
    (403, "forbidden", "API_KEY_ANDROID_APP_BLOCKED"): "restricted to apps of telephones",
    (403, "forbidden", "API_KEY_IOS_APP_BLOCKED"): "restricted to apps of telephones",
    (403, "forbidden", "API_KEY_SERVICE_BLOCKED"): "API restrictions leave out the YouTube Data",
    (403, "ipRefererBlocked", ""): "restricted to web pages or IP addresses",
    (403, "forbidden", "SERVICE_DISABLED"): "Enable it for the key's project at https://console",
    (403, "accessNotConfigured", ""): "in which the YouTube Data API v3 is enabled",
    (403, "forbidden", "CONSUMER_SUSPENDED"): "Google has suspended the key's project",
    (403, "forbidden", "CONSUMER_INVALID"): "The key's project is not there",
    (403, "forbidden", "BILLING_DISABLED"): "The billing account of the key's project",
    (403, "forbidden", ""): "Set YOUTUBE_API_KEY to a key of a project",
    (401, "authError", "CREDENTIALS_MISSING"): "Set YOUTUBE_API_KEY to a key that exists",
}


@pytest.mark.parametrize("refusal", KEY_REFUSED)
def test_the_reason_for_which_a_key_is_refused_chooses_the_mend(
    workspace: Workspace, youtube: YouTubeServer, refusal: tuple[int, str, str]
) -> None:
    status, reason, detail = refusal
    youtube.answer_next(error_body(status, reason, detail), status)
    with pytest.raises(YouTubeError) as error:
        ask_once(workspace)
    said = str(error.value)
    assert said.startswith("YouTube channels: the key was refused (HTTP ")
    assert KEY_REFUSED[refusal] in said
    assert (detail or reason) in said
    disabled = {"SERVICE_DISABLED", "accessNotConfigured"} & {reason, detail}
    assert ("Enable it" in said) == bool(disabled)


def test_each_reason_of_googles_that_concerns_a_key_or_its_project_has_a_mend() -> None:
    starts = ("API_KEY_", "SERVICE_", "CONSUMER_", "BILLING_", "CREDENTIALS_MISSING")
    reasons = [name for name, _ in ErrorReason.items() if name.startswith(starts)]
    assert len(reasons) >= 10
    assert set(reasons) <= set(KEY_MENDS)


def test_an_old_answer_about_a_wrong_key_is_known_by_its_words(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    for words, mend in (("API key not valid.", "that exists"), ("API key expired.", "has expired")):
        youtube.answer_next(error_body(400, "badRequest", message=words), 400)
        with pytest.raises(YouTubeError, match=f"the key was refused .*{words}.*{mend}"):
            ask_once(workspace)


DAYS = [{"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quota_limit": "defaultPerDayPerProject"}}]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, error_body(403, "quotaExceeded")),
        (403, error_body(403, "dailyLimitExceeded")),
        (429, error_body(429, "rateLimitExceeded", details=DAYS)),
    ],
)
def test_a_days_quota_that_is_used_up_is_not_asked_again(
    workspace: Workspace, youtube: YouTubeServer, status: int, body: str
) -> None:
    youtube.answer_next(body, status)
    with pytest.raises(QuotaUsedUpError, match="filled again at midnight Pacific time"):
        listing(workspace)
    assert len(youtube.requests) == 1


MINUTES = [{"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quota_limit": "PerMinutePerProject"}}]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, error_body(409, "SERVICE_UNAVAILABLE", status="ABORTED")),
        (409, ""),
        (408, ""),
        (403, error_body(403, "forbidden", "RATE_LIMIT_EXCEEDED", status="RESOURCE_EXHAUSTED")),
        (403, error_body(403, "rateLimitExceeded", details=MINUTES)),
        (400, error_body(400, "", status="UNAVAILABLE")),
        (504, error_body(504, "", details="none", errors=[None, 5, {"reason": 5}])),
    ],
)
def test_an_error_answer_that_passes_may_be_tried_again(
    workspace: Workspace, youtube: YouTubeServer, status: int, body: str
) -> None:
    youtube.answer_next(body, status)
    with pytest.raises(RetryableYouTubeError, match=f"fails now .HTTP {status}.* Run again later"):
        ask_once(workspace)


def test_what_is_refused_for_another_reason_is_told_in_googles_words(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.fail_next(403, "channelClosed")
    with pytest.raises(YouTubeError, match=r"refused \(HTTP 403, channelClosed: 'stand-in cha"):
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
    asked = youtube.not_modified
    assert second.work == f"{asked} units of quota: 0 answers fetched, {asked} unchanged"


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


@pytest.mark.usefixtures("prefect_harness")
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


@pytest.mark.usefixtures("prefect_harness")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("endpoint", "params", "schema"),
    [
        (
            "channels",
            {"part": "snippet,contentDetails,statistics", "forHandle": "@tester"},
            "ChannelListResponse",
        ),
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
