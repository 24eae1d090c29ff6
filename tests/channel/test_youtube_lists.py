"""A list of several pages: what fails in its middle, what changes meanwhile, what it lacks."""

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect import flow
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.channel.test_youtube import endpoints, listing
from tests.youtube_server import YouTubeServer, make_video, with_status
from thumbtune.channel.listing import Video
from thumbtune.channel.source import Params
from thumbtune.channel.sources.youtube import listing as client
from thumbtune.channel.sources.youtube.api import (
    QuotaUsedUpError,
    RetryableYouTubeError,
    YouTubeError,
    request_api,
)
from thumbtune.channel.sources.youtube.listing import NoVideosError, find_channel, list_channel
from thumbtune.channel.sources.youtube.unfinished import ListCalls, close_listing
from thumbtune.clip.models import find_model
from thumbtune.errors import SourceError
from thumbtune.flows.training import collect
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import Stages

WAYS = {"uploads": "playlistItems", "search": "search"}
SIZE = 5  # of a page here


class Killed(BaseException):
    """The run is gone."""


class Runs:
    """Runs that list the channel, without Prefect and its retries."""

    def __init__(self, workspace: Workspace, way: Any = "uploads") -> None:
        self.workspace, self.way = workspace, way
        self.told: list[str] = []
        self.work = ""
        self.dropped: dict[str, int] = {}
        self.calls = 0

    def run(self, calls: int = 10**6) -> list[Video]:
        """List once; it dies instead of making one call more than these."""

        def ask(endpoint: str, params: Params, since: datetime | None) -> dict[str, Any]:
            nonlocal calls
            if not calls:
                raise Killed
            calls -= 1
            self.calls += 1
            return request_api(self.workspace, endpoint, params, 10**9, since)

        made = ListCalls(self.workspace, "@tester", self.way, ask)
        channel = find_channel(made, "@tester")
        found = list_channel(made, channel, self.way, made.mark_pages, self.told.append)
        self.work, self.dropped = made.work(), dict(found[1])
        close_listing(self.workspace, "@tester", self.way)
        return found[0]


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE", SIZE)


@pytest.fixture
def videos(youtube: YouTubeServer) -> list[dict[str, Any]]:
    """Of a channel of three pages."""
    videos = [make_video(n) for n in range(3 * SIZE)]
    youtube.add_channel(videos)
    return videos


@pytest.fixture
def runs(workspace: Workspace, way: str, videos: list[dict[str, Any]], small_pages: None) -> Runs:
    return Runs(workspace, way)


BEHIND_A_TOKEN = {
    "the token is refused": with_status(400, "invalidPageToken"),
    "the playlist is not found": with_status(404, "playlistNotFound"),
    "it is forbidden": with_status(403, "playlistItemsNotAccessible"),
    "so is the key": with_status(403, "forbidden"),
    "the server fails": with_status(503, "backendError"),
    "no JSON": lambda request: Response("<html>"),
    "nothing is as documented": lambda request: Response('{"items": [{}, {}]}'),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BEHIND_A_TOKEN)
def test_what_fails_behind_a_page_token_begins_the_list_anew(
    runs: Runs, youtube: YouTubeServer, fault: str
) -> None:
    endpoint = WAYS[runs.way]
    youtube.faults_of[endpoint].extend([None, None, BEHIND_A_TOKEN[fault]])
    assert len(runs.run()) == 3 * SIZE
    assert endpoints(youtube).count(endpoint) == 3 + (4 if runs.way == "search" else 3)
    assert youtube.not_modified == 2  # the pages that had been read
    assert "begun anew 1 times" in runs.work
    assert any("page 3 of the list cannot be read" in text for text in runs.told)


@pytest.mark.slow
@pytest.mark.parametrize("fault", BEHIND_A_TOKEN)
def test_what_fails_there_twice_names_the_page_and_the_next_run_begins_anew(
    runs: Runs, youtube: YouTubeServer, fault: str
) -> None:
    endpoint = WAYS[runs.way]
    bad = BEHIND_A_TOKEN[fault]
    youtube.faults_of[endpoint].extend([None, bad, None, bad])
    with pytest.raises((YouTubeError, RetryableYouTubeError)) as error:
        runs.run()
    said = str(error.value)
    assert said.startswith(f"YouTube {endpoint}: page 2 of the list fails, though the list was beg")
    assert "Run again later" in said
    assert "channel:" not in said
    youtube.requests.clear()
    assert len(runs.run()) == 3 * SIZE
    assert endpoints(youtube)[0] == endpoint  # the channel itself is known
    assert "pageToken" not in youtube.requests[0].args


def test_a_first_page_that_was_read_and_is_refused_then_is_no_empty_channel(
    runs: Runs, youtube: YouTubeServer
) -> None:
    gone = with_status(404, "playlistNotFound")
    youtube.faults_of[WAYS[runs.way]].extend([None, gone, gone])
    with pytest.raises(YouTubeError, match=r"page 1 of the list fails.*HTTP 404, playlistNotFound"):
        runs.run()


def test_a_days_quota_that_ends_in_the_list_does_not_begin_it_anew_in_the_same_run(
    runs: Runs, youtube: YouTubeServer
) -> None:
    youtube.faults_of[WAYS[runs.way]].extend([None, with_status(403, "quotaExceeded")])
    with pytest.raises(QuotaUsedUpError):
        runs.run()
    assert len(youtube.requests) == 3


def test_a_refused_token_is_mended_in_a_whole_run_with_prefects_retries(
    workspace: Workspace, youtube: YouTubeServer, way: str
) -> None:
    youtube.add_channel([make_video(n) for n in range(120)])
    youtube.faults_of[WAYS[way]].extend([None, with_status(400, "invalidPageToken")])
    found = listing(workspace, listing=way)
    assert len(found.videos) == 120
    assert found.work.endswith("the list was begun anew 1 times")


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("refresh", [False, True])
def test_a_refresh_uses_nothing_that_an_unfinished_list_has_left(
    workspace: Workspace, youtube: YouTubeServer, refresh: bool
) -> None:
    youtube.add_channel([make_video(n, duration="PT9S") for n in range(60)])
    youtube.faults_of["videos"].extend([None, with_status(403, "quotaExceeded")])
    parameters = TrainParameters(channel="@tester", refresh=refresh)

    @flow(name="collect")
    def collect_flow() -> None:
        collect(workspace, parameters, Stages(workspace, refresh), find_model("sample"), None)

    with pytest.raises(QuotaUsedUpError):
        listing(workspace)
    youtube.requests.clear()
    with pytest.raises(SourceError, match="none of 60 videos"):
        collect_flow()
    asked = ["playlistItems", "playlistItems", "videos", "videos"]
    assert endpoints(youtube) == (asked if refresh else ["videos"])


def test_videos_that_move_to_an_earlier_page_while_a_list_waits_are_not_lost(
    runs: Runs, videos: list[dict[str, Any]]
) -> None:
    with pytest.raises(Killed):
        runs.run(calls=2)  # the channel and the first page
    del videos[-2:]  # the newest: two of the second page come to the first
    videos += [make_video(-2, day=-2), make_video(-1, day=-1)]  # and the length is as before
    assert [video.id for video in runs.run()] == [
        video["id"] for video in sorted(videos, key=lambda video: -video["day"])
    ]


def test_pages_that_were_all_read_are_used_again_though_the_list_has_changed_since(
    runs: Runs, youtube: YouTubeServer, videos: list[dict[str, Any]]
) -> None:
    pages = 4 if runs.way == "search" else 3  # a search gives the channel itself too
    with pytest.raises(Killed):
        runs.run(calls=1 + pages + 1)
    del videos[-1]
    youtube.requests.clear()
    assert len(runs.run()) == 3 * SIZE  # the one was still there when it was listed
    assert endpoints(youtube) == ["videos"] * 2


def test_a_kept_page_that_is_gone_begins_the_list_anew(
    runs: Runs, youtube: YouTubeServer, videos: list[dict[str, Any]], workspace: Workspace
) -> None:
    pages = 4 if runs.way == "search" else 3
    with pytest.raises(Killed):
        runs.run(calls=1 + pages)
    stored = sorted((workspace.root / "youtube").iterdir(), key=lambda file: file.stat().st_mtime)
    stored[2].unlink()  # the second page
    assert len(runs.run()) == 3 * SIZE
    assert "the list was begun anew 1 times" in runs.work


def test_a_list_that_shrinks_while_it_is_read_is_read_again(
    workspace: Workspace, youtube: YouTubeServer, videos: list[dict[str, Any]], small_pages: None
) -> None:
    pages = itertools.count(1)

    def shrink() -> None:
        if next(pages) == 2:
            del videos[-1]

    youtube.before_page = shrink
    runs = Runs(workspace)
    assert len(runs.run()) == 3 * SIZE - 1
    assert any("has changed while it was read" in text for text in runs.told)


def test_a_count_of_youtubes_that_is_never_the_same_is_no_change(
    workspace: Workspace, youtube: YouTubeServer, small_pages: None
) -> None:
    """What two readings say alike is taken."""
    videos = [make_video(n) for n in range(2 * SIZE)]
    youtube.add_channel(videos)
    private = make_video(99, privacy="private", day=-1)
    pages = itertools.count()

    def waver() -> None:
        videos[2 * SIZE :] = [] if next(pages) % 2 else [private]

    youtube.before_page = waver
    runs = Runs(workspace)
    assert len(runs.run()) == 2 * SIZE
    assert endpoints(youtube).count("playlistItems") == 4


def changed(videos: list[dict[str, Any]], gone: int, new: int, old: int) -> None:
    """Take videos away at a place, and put some at the top and some at the bottom."""
    newest = sorted(videos, key=lambda video: -video["day"])
    for video in newest[gone : gone + 2] if gone >= 0 else []:
        videos.remove(video)
    last = max((video["day"] for video in videos), default=0)
    first = min((video["day"] for video in videos), default=0)
    for number in range(new):
        videos.append(make_video(1000 + last + number, day=last + 1 + number))
    for number in range(old):
        videos.append(make_video(50_000 - first + number, day=first - 1 - number))


anything = st.tuples(st.integers(-1, 9), st.integers(0, 3), st.integers(0, 3))
uploads_only = st.tuples(st.integers(-1, 9), st.integers(0, 2), st.just(0))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.sampled_from([0, 1, 5, 6, 9, 11, 12, 14]),
    between_runs=st.lists(st.tuples(st.integers(1, 5), anything), max_size=2),
    between_pages=st.dictionaries(st.integers(2, 5), uploads_only, max_size=client.READINGS - 1),
)
def test_a_finished_list_has_each_video_that_was_there_all_the_time(
    tmp_path_factory: pytest.TempPathFactory,
    httpserver: HTTPServer,
    size: int,
    between_runs: list[tuple[int, tuple[int, int, int]]],
    between_pages: dict[int, tuple[int, int, int]],
) -> None:
    """Whatever comes and goes between runs; within one, what is uploaded and what is deleted."""
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace"))
    with pytest.MonkeyPatch.context() as patch:
        httpserver.clear()
        server = YouTubeServer(httpserver)
        patch.setenv("THUMBTUNE_YOUTUBE_API_URL", server.api_url)
        patch.setenv("YOUTUBE_API_KEY", server.key)
        patch.setattr(client, "PAGE", SIZE)
        videos = [make_video(n) for n in range(size)]
        always = {video["id"] for video in videos}
        server.add_channel(videos)
        runs = Runs(workspace)
        page = itertools.count(1)

        def change(how: tuple[int, int, int]) -> None:
            changed(videos, *how)
            always.intersection_update(video["id"] for video in videos)

        server.before_page = lambda: change(between_pages.get(next(page), (-1, 0, 0)))
        for calls, how in between_runs:
            try:
                runs.run(calls)
            except (Killed, NoVideosError):
                change(how)
        try:
            found = {video.id for video in runs.run()}
        except NoVideosError:
            found = set()
        assert always <= found


statuses = st.sampled_from([None, None, None, 400, 403, 404, 409, 500])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(faults=st.lists(statuses, max_size=30))
def test_whatever_fails_a_run_makes_a_bounded_number_of_calls(
    tmp_path_factory: pytest.TempPathFactory, httpserver: HTTPServer, faults: list[int | None]
) -> None:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace"))
    with pytest.MonkeyPatch.context() as patch:
        httpserver.clear()
        server = YouTubeServer(httpserver)
        patch.setenv("THUMBTUNE_YOUTUBE_API_URL", server.api_url)
        patch.setenv("YOUTUBE_API_KEY", server.key)
        patch.setattr(client, "PAGE", SIZE)
        server.add_channel([make_video(n) for n in range(3 * SIZE)])
        server.faults_of["playlistItems"].extend(
            with_status(status, "") if status else None for status in faults
        )
        runs = Runs(workspace)
        try:
            assert len(runs.run()) == 3 * SIZE
        except (YouTubeError, RetryableYouTubeError, NoVideosError):
            assert any(faults)
        assert runs.calls <= 1 + client.READINGS * 3 + 3


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("search", "YouTube counts 6 more videos than its search gave; a search ends after 10"),
        ("uploads", "YouTube counts 6 more videos than its list of uploads gave; the list ends"),
    ],
)
def test_a_list_that_ends_before_the_channel_does_says_how_many_are_missing(
    workspace: Workspace,
    youtube: YouTubeServer,
    monkeypatch: pytest.MonkeyPatch,
    small_pages: None,
    way: str,
    said: str,
) -> None:
    monkeypatch.setattr(client, "SEARCH_LISTED", 10)
    monkeypatch.setattr(client, "UPLOADS_LISTED", 10)
    youtube.ends_after = {"search": 10, "playlistItems": 10}
    youtube.add_channel([make_video(n) for n in range(16)])
    runs = Runs(workspace, way)
    assert len(runs.run()) == 10
    assert runs.dropped == {"not listed by YouTube": 6}
    assert any(text.startswith(said) for text in runs.told)


def test_without_youtubes_own_count_a_searchs_estimate_is_told_as_one(
    workspace: Workspace, youtube: YouTubeServer, small_pages: None
) -> None:
    youtube.counts_videos = False
    youtube.ends_after = {"search": 10, "playlistItems": 10}
    youtube.add_channel([make_video(n) for n in range(16)])
    runs = Runs(workspace, "search")
    assert len(runs.run()) == 10
    assert runs.dropped == {}
    [said] = runs.told
    assert said.startswith("YouTube estimates 7 more videos than its search gave")
    uploads = Runs(workspace)
    assert len(uploads.run()) == 10
    assert uploads.dropped == {"not listed by YouTube": 6}


def test_private_and_deleted_videos_are_not_missing(
    workspace: Workspace, youtube: YouTubeServer, small_pages: None
) -> None:
    others = [make_video(20, privacy="private"), make_video(21, deleted=True)]
    youtube.add_channel([*(make_video(n) for n in range(8)), *others])
    runs = Runs(workspace)
    assert len(runs.run()) == 8
    assert runs.dropped == {"private": 1, "deleted": 1}
    assert runs.told == []


def without(*path: str) -> Callable[[dict[str, Any]], Any]:
    """Remove a field of an item."""

    def spoil(item: dict[str, Any]) -> Any:
        inner = item
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]
        return item

    return spoil


def set_to(value: Any, *path: str) -> Callable[[dict[str, Any]], Any]:
    def spoil(item: dict[str, Any]) -> Any:
        inner = item
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        return item

    return spoil


ODD = {
    "no title": without("snippet", "title"),
    "a title that is null": set_to(None, "snippet", "title"),
    "a title that is a number": set_to(5, "snippet", "title"),
    "no snippet": without("snippet"),
    "a snippet that is null": set_to(None, "snippet"),
    "a snippet that is a list": set_to([], "snippet"),
    "thumbnails that are null": set_to(None, "snippet", "thumbnails"),
    "thumbnails that are a text": set_to("x", "snippet", "thumbnails"),
    "thumbnails without an address": set_to({"high": {}}, "snippet", "thumbnails"),
    "a duration that is a number": set_to(601, "contentDetails", "duration"),
    "a status that is a text": set_to("public", "status"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("alone", [False, True])
def test_an_odd_item_leaves_out_that_video_by_its_id_and_no_other(
    workspace: Workspace, youtube: YouTubeServer, small_pages: None, kind: str, alone: bool
) -> None:
    videos = [make_video(n) for n in range(SIZE + 1)]
    youtube.add_channel(videos)
    odd = videos[0 if alone else 3]["id"]  # the first stands alone on the last page
    youtube.spoil["videos", odd] = ODD[kind]
    runs = Runs(workspace)
    assert {video.id for video in runs.run()} == {video["id"] for video in videos} - {odd}
    assert runs.dropped == {f"odd answer of YouTube ({odd})": 1}
    assert runs.calls == 5
    [said] = runs.told
    assert odd in said


FINE = {
    "a null duration": set_to(None, "contentDetails", "duration"),
    "a null status": set_to(None, "status"),
    "null details": set_to(None, "contentDetails"),
    "a null date": set_to(None, "snippet", "publishedAt"),
    "null liveBroadcastContent": set_to(None, "snippet", "liveBroadcastContent"),
    "a null width": set_to(None, "snippet", "thumbnails", "high", "width"),
    "one null size of the thumbnail": set_to(None, "snippet", "thumbnails", "maxres"),
    "half a character in the title": set_to("\ud83d robots", "snippet", "title"),
    "half a character in the description": set_to("\ud83d", "snippet", "description"),
    "a field of fields": set_to([[[[{}]]]], "snippet", "localized"),
}


@pytest.mark.parametrize("kind", FINE)
def test_nulls_and_half_characters_that_nothing_depends_on_cost_no_video(
    workspace: Workspace, youtube: YouTubeServer, kind: str
) -> None:
    youtube.add_channel([make_video(n) for n in range(2)])
    youtube.spoil["videos", "video-00001"] = FINE[kind]
    runs = Runs(workspace)
    found = runs.run()
    assert len(found) == 2
    assert runs.dropped == {}
    table = workspace.write_table("videos", found)
    assert workspace.read_table(table, Video) == found


ODD_IN_A_LIST = {
    "nothing": lambda item: {},
    "null": lambda item: None,
    "a text": lambda item: "video",
    "no details": lambda item: {"kind": item["kind"]},
    "a null id": lambda item: {**item, "contentDetails": {"videoId": None}, "id": {"kind": None}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD_IN_A_LIST)
@pytest.mark.parametrize("alone", [False, True])
def test_an_odd_item_of_a_list_is_counted(
    runs: Runs, youtube: YouTubeServer, videos: list[dict[str, Any]], kind: str, alone: bool
) -> None:
    del videos[SIZE + 1 :]  # the first stands alone on the last page of the uploads
    odd = videos[0 if alone else 3]["id"]
    youtube.spoil[WAYS[runs.way], odd] = ODD_IN_A_LIST[kind]
    assert len(runs.run()) == SIZE
    [(reason, count)] = runs.dropped.items()
    assert reason.startswith("odd answer of YouTube (")
    assert count == 1


def test_many_odd_items_are_one_reason_with_the_first_ids(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(n) for n in range(9)])
    for number in range(5):
        youtube.spoil["videos", f"video-{number:05}"] = without("snippet")
    runs = Runs(workspace)
    assert len(runs.run()) == 4
    [(reason, count)] = runs.dropped.items()
    assert reason.startswith("odd answer of YouTube (video-0000")
    assert (reason.count("video-"), reason.endswith(", …)"), count) == (3, True, 5)


def test_an_odd_item_neither_refuses_the_channel_nor_is_retried_in_a_whole_run(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(n) for n in range(3)])
    youtube.spoil["videos", "video-00001"] = ODD["thumbnails that are null"]
    found = listing(workspace)
    assert len(found.videos) == 2
    assert found.dropped == {"odd answer of YouTube (video-00001)": 1}
    assert len(youtube.requests) == 3


@pytest.mark.parametrize("part", ["snippet", "statistics"])
@pytest.mark.parametrize("value", [None, [], {"title": 5, "videoCount": "many"}])
def test_a_channel_without_a_title_or_a_count_is_listed_all_the_same(
    workspace: Workspace, youtube: YouTubeServer, part: str, value: Any
) -> None:
    youtube.add_channel([make_video(n) for n in range(2)])
    plain = youtube._answer

    def answer(request: Request, endpoint: str, body: dict[str, Any]) -> Response:
        if endpoint == "channels":
            body["items"][0][part] = value
        return plain(request, endpoint, body)

    youtube._answer = answer  # type: ignore[method-assign]
    assert len(Runs(workspace).run()) == 2
