"""Source `youtube`: a channel's videos from the YouTube Data API v3.

https://developers.google.com/youtube/v3/docs. A channel of 121 videos costs 7 quota units by its
uploads playlist (1 for the channel, then 1 for every 50 videos, twice), and 421 the article's way.
"""

import email.utils
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import AwareDatetime, BaseModel, ValidationError

from thumbtune.channel.downloads import TooLargeError, TooSlowError, read_body
from thumbtune.channel.identity import YouTubeChannel
from thumbtune.channel.listing import Video
from thumbtune.channel.quota import spend
from thumbtune.channel.secrets import read_secret
from thumbtune.channel.sources.fields import parse_duration
from thumbtune.channel.sources.youtube_answers import (
    VIDEO,
    Answer,
    ChannelItem,
    PlaylistItem,
    SearchResult,
    VideoItem,
    first_problem,
    name_of,
    problem_of,
)
from thumbtune.channel.sources.youtube_refusals import read_refusal
from thumbtune.errors import SourceError, UserError
from thumbtune.names.channel_name import channel_query
from thumbtune.store.workspace import Workspace, checksum, fingerprint

PAGE = 50  # the API's largest page, and the most ids in one call
TIMEOUT = (10, 30)  # seconds to connect and between two bytes
TOTAL = 60.0  # seconds for a whole answer
LARGEST = 20_000_000  # bytes; an answer of 50 videos has some 200,000
IDLE_PAGES = 3  # in a row without anything new; a search may have an empty page in its middle
PAGES = 2000  # of one list; an endless one must end. YouTube lists 20,000 videos at most
RESUMABLE = timedelta(hours=48)  # a list that was begun longer ago is begun again
READINGS = 4  # of one list in one run, if it changes while it is read
UPLOADS_LISTED = 20_000  # videos of a channel that YouTube lists at most
SEARCH_LISTED = 500  # results that a search gives at most
NAMED = 3  # of several things, so many are told by their names
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to this

Params = dict[str, str | int]
Call = Callable[[str, Params], dict[str, Any]]
"""(endpoint, parameters) → the parsed answer of one API call."""

Ask = Callable[[str, Params, datetime | None], dict[str, Any]]
"""The same, with the moment since when a stored answer need not be asked for again."""

Request = Callable[[Workspace, str, Params, int, datetime | None], dict[str, Any]]
"""`request_api`, or the task that tries it again when it fails."""

Origin = Literal["fetched", "unchanged", "kept"]
"""How an answer came: new, as it was the last time, or kept from a list begun just before."""

ORIGIN = "thumbtune:origin"
"""Where an answer that was not fetched anew tells its origin."""

PAGED = {"playlistItems", "search"}
QUOTA_UNITS = {"channels": 1, "playlistItems": 1, "videos": 1, "search": 100}
"""https://developers.google.com/youtube/v3/determine_quota_cost"""


TO_COME = {"live": "live now", "upcoming": "upcoming"}
"""`liveBroadcastContent` → the reason for which a video is not learned from yet."""
NO_LENGTH = "P0D"
"""The duration of what is upcoming, or live, or over and not stored yet."""
NO_LENGTH_YET = "no length yet"

NO_PUBLIC_VIDEOS = "has no public videos. Choose another channel, or run again when it has some."


class YouTubeError(UserError):
    """The API refused for good; the message says what to do."""


class RetryableYouTubeError(UserError):
    """The API failed for a passing cause: another try may help."""


class ChannelNotFoundError(SourceError):
    """There is no such channel."""


class NoVideosError(SourceError):
    """The channel has no public videos."""


class QuotaUsedUpError(YouTubeError):
    """Google gives this key no more calls today."""


class RefusedError(YouTubeError):
    """The API refused what was asked for, not the key."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Found(NamedTuple):
    """What a channel has."""

    videos: list[Video]
    """The public, finished ones."""
    dropped: Counter[str]
    """Reason → number of those left out."""
    to_come: list[str]
    """Ids of those that are left out until they are over: premieres and streams."""


def list_channel(
    call: Call,
    channel: YouTubeChannel,
    listing: Literal["uploads", "search"],
    mark_pages: Callable[[bool], None] = lambda whole: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Found:
    """List a channel's videos, newest first.

    Args:
        call: makes one API call.
        mark_pages: is told when all pages of the list are read in one go (True), and when they
            are about to be read anew (False): answers that are kept must not be used then.
        tell: is told what the user should know.

    Raises:
        NoVideosError: the channel has none.
        ChannelNotFoundError: the channel is gone.
    """
    try:
        read = _read_list(call, *_list_of(channel, listing), mark_pages, tell)
    except RefusedError as error:
        if error.status != 404:
            raise
        find_channel(call, channel.id)  # raises if it is gone, and not only empty
        raise NoVideosError(_no_videos(channel)) from None
    if not (read.listed or read.odd):
        raise NoVideosError(_no_videos(channel))
    found = _videos(call, read, tell)
    if not _is_whole(read, listing):
        missing = _missing(count_videos(call, channel.id), read, listing, tell)
        found.dropped.update({"not listed by YouTube": missing} if missing else {})
    return found


def _no_videos(channel: YouTubeChannel) -> str:
    return f"channel: {channel.handle or channel.title or channel.id!r} {NO_PUBLIC_VIDEOS}"


def find_channel(call: Call, channel: str) -> YouTubeChannel:
    """Ask who a channel is, given in any spelling, for one quota unit.

    https://developers.google.com/youtube/v3/docs/channels/list
    """
    params: Params = {"part": "snippet,contentDetails", **channel_query(channel)}
    items = Answer.model_validate(call("channels", params)).items
    if not items:
        raise ChannelNotFoundError(
            f"channel: YouTube knows no channel {channel!r}. Check the spelling, or copy the "
            "address of the channel's page."
        )
    found = ChannelItem.model_validate(items[0])
    handle = (found.snippet and found.snippet.custom_url) or ""
    return YouTubeChannel(
        id=found.id,
        uploads=found.details.related_playlists.uploads,
        title=(found.snippet and found.snippet.title) or "",
        handle=handle if handle.startswith("@") else "",  # some have an address of an older kind
    )


def count_videos(call: Call, channel_id: str) -> int | None:
    """How many public videos a channel has by YouTube's own count, for one quota unit."""
    answer = call("channels", {"part": "contentDetails,statistics", "id": channel_id})
    for item in Answer.model_validate(answer).items:
        found = ChannelItem.model_validate(item)
        return found.statistics.videos if found.statistics else None
    return None


class Listed(NamedTuple):
    """A video as a list names it."""

    id: str
    privacy: str = "public"


def _list_of(found: YouTubeChannel, listing: str) -> tuple[str, Params]:
    """The endpoint and the parameters of a list: of the uploads, or the article's search.

    https://developers.google.com/youtube/v3/docs/playlistItems/list
    https://developers.google.com/youtube/v3/docs/search/list
    """
    if listing == "uploads":
        part = "contentDetails,status"
        return "playlistItems", {"part": part, "playlistId": found.uploads, "maxResults": PAGE}
    return "search", {
        "part": "snippet,id",
        "channelId": found.id,
        "order": "date",
        "maxResults": PAGE,
    }


class Read(NamedTuple):
    """What one reading of all pages of a list gave."""

    listed: list[Listed]
    odd: list[str]
    """What names the items that are not as documented."""
    others: int
    """Items that are no videos; a search gives the channel itself."""
    totals: list[int]
    """How many items there are, as page after page says; not of a search, which only estimates."""
    estimate: int | None

    @property
    def is_steady(self) -> bool:
        """Whether nothing went from the list while it was read.

        What goes from an earlier page pulls a video from the next page onto one that was read.
        What comes pushes videos onto the next page, where they are listed twice.
        """
        return all(later >= earlier for earlier, later in pairwise(self.totals))


class _PageError(Exception):
    """A page after the first cannot be read, for which the page's token may be to blame."""

    def __init__(self, page: int, cause: YouTubeError | RetryableYouTubeError | None) -> None:
        super().__init__(page, cause)
        self.page = page
        self.cause = cause

    def __str__(self) -> str:
        return f"page {self.page} of the list cannot be read ({self.cause or 'it is not kept'})"


def _read_list(
    call: Call,
    endpoint: str,
    params: Params,
    mark_pages: Callable[[bool], None],
    tell: Callable[[str], None],
) -> Read:
    """Read all pages in one go, and begin anew if one fails or the list changes meanwhile.

    A page token is a place in a list, so what is read behind it fits to the pages before it only
    if nothing has gone from those. That is seen by YouTube's count, unless something old came
    into the list in the same moment. What every reading lacks would have had to be moved in each.

    Raises:
        RefusedError: the first page is refused.
        YouTubeError: a later page is, twice.
    """
    reads: list[Read] = []
    failed = False
    for number in range(READINGS):
        if number:
            mark_pages(False)
        try:
            reads.append(_read_once(call, endpoint, params))
        except RefusedError as error:
            if number:  # it was read a moment ago, so there is such a list
                raise _said_of_page(endpoint, _PageError(1, error)) from None
            raise
        except _PageError as error:
            if failed and error.cause:
                raise _said_of_page(endpoint, error) from None
            failed = failed or bool(error.cause)
            tell(f"YouTube {endpoint}: {error}; the list is begun anew")
            continue
        if reads[-1].is_steady or reads[-1] in reads[:-1]:
            mark_pages(True)
            return reads[-1]
        tell(f"YouTube {endpoint}: the list has changed while it was read; it is begun anew")
    tell(f"YouTube {endpoint}: the list changed in each of {READINGS} readings; all are used")
    mark_pages(True)
    together = dict.fromkeys(entry for read in reads for entry in read.listed)
    return reads[-1]._replace(listed=list(together))


def _said_of_page(endpoint: str, error: _PageError) -> Exception:
    kind = RetryableYouTubeError if isinstance(error.cause, RetryableYouTubeError) else YouTubeError
    return kind(
        f"YouTube {endpoint}: page {error.page} of the list fails, though the list was begun anew "
        f"({error.cause}) Run again later: the list is begun anew then too."
    )


def _read_once(call: Call, endpoint: str, params: Params) -> Read:
    listed, odd, others, totals = [], [], 0, []
    estimate = None
    for answer in _pages(call, endpoint, params):
        page = Answer.model_validate(answer)
        for item in page.items:
            try:
                entry = _listed(endpoint, item)
            except ValidationError:
                odd.append(name_of(item))
                continue
            others += entry is None
            listed += [entry] if entry else []
        estimate = page.total if page.total is not None else estimate
        if page.total is not None and endpoint != "search":
            totals.append(page.total)
    return Read(listed, odd, others, totals, estimate)


def _listed(endpoint: str, item: Any) -> Listed | None:
    """The video of a list's item, None if it is something else.

    Raises:
        ValidationError: the item is not as documented.
    """
    if endpoint == "playlistItems":
        entry = PlaylistItem.model_validate(item)
        return Listed(entry.details.video_id, entry.status.privacy if entry.status else "public")
    result = SearchResult.model_validate(item)
    return Listed(result.id.video_id) if result.id.kind == VIDEO else None


def _pages(call: Call, endpoint: str, params: Params) -> Iterator[dict[str, Any]]:
    """The answers of all pages; tokens that go round, or on and on without anything new, end it.

    Raises:
        _PageError: a page after the first cannot be had, or not from where the first came.
    """
    tokens: set[str] = set()
    items: set[str] = set()
    token: str | None = None
    idle = 0
    from_kept: set[bool] = set()
    for page in range(1, PAGES + 1):
        try:
            answer = call(endpoint, {**params, **({"pageToken": token} if token else {})})
        except QuotaUsedUpError:
            raise
        except (YouTubeError, RetryableYouTubeError) as error:
            if not token:
                raise
            raise _PageError(page, error) from None
        from_kept.add(origin_of(answer) == "kept")
        if len(from_kept) > 1:
            raise _PageError(page, None)
        yield answer
        new = {json.dumps(item, sort_keys=True) for item in answer.get("items", [])} - items
        token = answer.get("nextPageToken")
        idle = 0 if new else idle + 1
        if not token or token in tokens or idle == IDLE_PAGES:
            return
        tokens.add(token)
        items |= new
    raise YouTubeError(
        f"YouTube {endpoint}: the list does not end after {PAGES} pages. Run again later."
    )


def _is_whole(read: Read, listing: str) -> bool:
    """Whether a list has all that YouTube says of its length, and does not end where all do."""
    longest = UPLOADS_LISTED if listing == "uploads" else SEARCH_LISTED
    total = longest if read.estimate is None else read.estimate
    return total <= _given(read) < longest


def _given(read: Read) -> int:
    """How many items of a list were read."""
    return len({entry.id for entry in read.listed}) + read.others + len(read.odd)


def _missing(videos: int | None, read: Read, listing: str, tell: Callable[[str], None]) -> int:
    """How many public videos the list lacks, so far as YouTube tells.

    Args:
        videos: how many the channel has, if that is known.
    """
    distinct = {entry.id: entry for entry in read.listed}.values()
    given = _given(read)
    public = sum(entry.privacy == "public" for entry in distinct) + len(read.odd)
    said = given if read.estimate is None else read.estimate
    counted = videos is not None
    missing = max(videos - public if videos is not None else said - given, 0)
    if not missing:
        return 0
    if listing == "search":
        tell(
            f"YouTube {'counts' if counted else 'estimates'} {missing} more videos than its search "
            f"gave; a search ends after {SEARCH_LISTED}. videos.listing uploads gives up to "
            f"{UPLOADS_LISTED:,}."
        )
    else:
        tell(
            f"YouTube counts {missing} more videos than its list of uploads gave; the list ends "
            f"after {UPLOADS_LISTED:,}."
        )
    return missing if counted or listing == "uploads" else 0


def _videos(call: Call, read: Read, tell: Callable[[str], None]) -> Found:
    """https://developers.google.com/youtube/v3/docs/videos/list"""
    distinct = list({entry.id: entry for entry in read.listed}.values())
    dropped: Counter[str] = Counter()
    if len(read.listed) > len(distinct):
        dropped["listed twice"] = len(read.listed) - len(distinct)
    videos, to_come = [], []
    odd = [Odd(name, "it names no video") for name in read.odd]
    for start in range(0, len(distinct), PAGE):
        asked = distinct[start : start + PAGE]
        ids = ",".join(entry.id for entry in asked)
        answer = call("videos", {"part": "snippet,contentDetails,status", "id": ids})
        found, strange = _read_videos(answer, asked)
        odd += strange
        for entry in asked:
            if entry.id in {item.name for item in strange}:
                continue
            if reason := _unusable(entry, found.get(entry.id)):
                dropped[reason] += 1
                to_come += [entry.id] if reason in {*TO_COME.values(), NO_LENGTH_YET} else []
            else:
                videos.append(_video(found[entry.id]))
    if odd:
        dropped[_reason_of(odd)] = len(odd)
        told = ", ".join(f"{item.name:.40} ({item.problem})" for item in odd[:10])
        tell(f"YouTube: {len(odd)} videos are left out, for their answers are odd: {told}")
    return Found(videos, dropped, to_come)


class Odd(NamedTuple):
    """An item that is not as documented."""

    name: str
    problem: str


def _reason_of(odd: list[Odd]) -> str:
    """The reason that counts odd items, with the first names."""
    names = ", ".join(f"{item.name:.40}" for item in odd[:NAMED])
    return f"odd answer of YouTube ({names}{', …' if len(odd) > NAMED else ''})"


def _read_videos(
    answer: dict[str, Any], asked: list[Listed]
) -> tuple[dict[str, VideoItem], list[Odd]]:
    """The items by their ids, and those of the asked ids whose item is odd."""
    found: dict[str, VideoItem] = {}
    problems: dict[str, str] = {}
    nameless = 0
    ids = {entry.id for entry in asked}
    for item in Answer.model_validate(answer).items:
        id_ = str(item.get("id")) if isinstance(item, dict) else ""
        if id_ not in ids:
            nameless += 1
            continue
        try:
            found[id_] = VideoItem.model_validate(item)
        except ValidationError as error:
            problems[id_] = first_problem(error)
    odd = [Odd(id_, problem) for id_, problem in problems.items() if id_ not in found]
    without = [entry.id for entry in asked if entry.id not in found and entry.id not in problems]
    return found, odd + [Odd(id_, "its item has no id") for id_ in without[:nameless]]


def _unusable(entry: Listed, item: VideoItem | None) -> str | None:
    """Why a video is left out, or None. One that is listed but not shown is private or gone."""
    if item is None:
        return "private" if entry.privacy == "private" else "deleted"
    if item.status.privacy != "public":
        return item.status.privacy
    has_no_length = item.details.duration == NO_LENGTH
    return TO_COME.get(item.snippet.live) or (NO_LENGTH_YET if has_no_length else None)


def _video(item: VideoItem) -> Video:
    thumbnails = item.snippet.thumbnails
    widest_first = sorted(thumbnails, key=lambda name: -thumbnails[name].width)
    return Video(
        id=item.id,
        title=item.snippet.title.strip(),
        thumbnails={name: thumbnails[name].url for name in widest_first if name != "file"},
        duration_seconds=_seconds(item.details.duration),
        published_at=item.snippet.published_at,
    )


def _seconds(duration: str | None) -> float | None:
    return parse_duration(duration, unknown=None) if duration else None


def api_url() -> str:
    """The API's address; THUMBTUNE_YOUTUBE_API_URL sets another one, on this machine or by HTTPS.

    A setting of the machine and no parameter, since the key is sent there.
    """
    url = os.environ.get("THUMBTUNE_YOUTUBE_API_URL", "https://www.googleapis.com/youtube/v3")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise YouTubeError(
            f"THUMBTUNE_YOUTUBE_API_URL is {url!r}; the key is sent there, so it must be https."
        )
    return url.rstrip("/")


class Unfinished(BaseModel):
    """What is known of a list that was begun and not ended."""

    begun: AwareDatetime
    """Answers that were stored since then need not be asked for again."""
    has_pages: bool = False
    """Whether all its pages were read in one go; else they are read anew."""


def open_listing(workspace: Workspace, channel: str, listing: str) -> Unfinished:
    """Begin a list of a channel, or go on with one that was not ended."""
    if left := _left(workspace, channel, listing):
        return left
    begun = Unfinished(begun=datetime.now(UTC))
    workspace.write(_unfinished(channel, listing), begun.model_dump_json().encode())
    return begun


def listing_began(workspace: Workspace, channel: str, listing: str) -> datetime:
    """When a list that is made now was begun: it may go on with an unfinished one."""
    left = _left(workspace, channel, listing)
    return left.begun if left else datetime.now(UTC)


def _left(workspace: Workspace, channel: str, listing: str) -> Unfinished | None:
    """A list that was begun not long ago, and not ended."""
    now = datetime.now(UTC)
    try:
        left = Unfinished.model_validate_json(workspace.read(_unfinished(channel, listing)))
    except (OSError, ValueError):
        return None
    return left if now - RESUMABLE < left.begun <= now else None


def close_listing(workspace: Workspace, channel: str, listing: str) -> None:
    """Whoever asked for the list has kept it; the next one is asked for anew."""
    workspace.remove(_unfinished(channel, listing))


def _unfinished(channel: str, listing: str) -> str:
    return f"youtube-unfinished/{fingerprint(channel, listing)[:32]}.json"


class ListCalls:
    """The calls that make one list, which goes on from what an unfinished one has left."""

    def __init__(self, workspace: Workspace, channel: str, listing: str, ask: Ask) -> None:
        self.workspace = workspace
        self.file = _unfinished(channel, listing)
        self.ask = ask
        self.left = open_listing(workspace, channel, listing)
        self.begun_anew = 0
        self.units: Counter[str] = Counter()
        self.answers: Counter[Origin] = Counter()

    def __call__(self, endpoint: str, params: Params) -> dict[str, Any]:
        """Make one call, unless its answer is kept and still fits to the others."""
        keeps = self.left.has_pages or endpoint not in PAGED
        answer = self.ask(endpoint, params, self.left.begun if keeps else None)
        origin = origin_of(answer)
        self.answers[origin] += 1
        self.units[endpoint] += 0 if origin == "kept" else QUOTA_UNITS[endpoint]
        return answer

    def mark_pages(self, whole: bool) -> None:
        """Write down whether all pages are read, before the next call is made."""
        self.begun_anew += not whole
        if whole != self.left.has_pages:
            self.left = self.left.model_copy(update={"has_pages": whole})
            self.workspace.write(self.file, self.left.model_dump_json().encode())

    def work(self) -> str:
        """What was asked for, in words."""
        work = f"{self.answers['fetched']} answers fetched, {self.answers['unchanged']} unchanged"
        if self.answers["kept"]:
            work += f", {self.answers['kept']} kept from a list begun before"
        if self.begun_anew:
            work += f"; the list was begun anew {self.begun_anew} times"
        return work


def origin_of(answer: dict[str, Any]) -> Origin:
    """How an answer came."""
    origin: Origin = answer.get(ORIGIN, "fetched")
    return origin


class _Stored(BaseModel):
    """An answer as it is kept."""

    etag: str | None
    body: dict[str, Any]
    at: AwareDatetime
    checksum: str = ""
    """Of the answer; empty in what an earlier thumbtune kept."""


def request_api(
    workspace: Workspace,
    endpoint: str,
    params: Params,
    daily_quota: int,
    since: datetime | None = None,
) -> dict[str, Any]:
    """Make one API call; an answer that has not changed since the last time is not sent again.

    The key goes in a header, so it is in no URL and no log.

    Args:
        daily_quota: units that the key may spend in a day.
        since: an answer that was stored since then is not asked for again.

    Raises:
        RetryableYouTubeError: 5xx, 429, a rate limit, a time-out, a broken connection or answer.
        YouTubeError: quota used up, wrong key, no permission; the message tells the mend.
        QuotaError: the day's budget is spent; the call is not made.
    """
    file = f"youtube/{_answer_key(endpoint, params)}.json"
    stored = _stored_answer(workspace, file, endpoint)
    if stored and since and stored.at >= since:
        return {**stored.body, ORIGIN: "kept"}
    key = read_secret("YOUTUBE_API_KEY")
    spend(workspace, key, QUOTA_UNITS[endpoint], daily_quota, datetime.now(UTC))
    headers = {"X-Goog-Api-Key": key}
    if stored and stored.etag and re.fullmatch(r"[\x21-\x7e]+", stored.etag):
        headers["If-None-Match"] = stored.etag
    answer, content = _send(endpoint, params, headers)
    if answer.status_code == 304 and stored:
        _store(workspace, file, endpoint, stored.etag, stored.body)
        return {**stored.body, ORIGIN: "unchanged"}
    body = _json_object(content.replace(key.encode(), b"[key]"))  # no error text echoes it
    if answer.status_code != 200:
        raise _api_error(answer, body or {}, endpoint)
    if body is None:
        raise RetryableYouTubeError(f"YouTube {endpoint}: the answer is no whole JSON object")
    if problem := problem_of(endpoint, body, str(params.get("id", ""))):
        raise RetryableYouTubeError(
            f"YouTube {endpoint}: the answer is not as documented: {problem}"
        )
    etag = answer.headers.get("ETag") or body.get("etag")
    _store(workspace, file, endpoint, etag if isinstance(etag, str) else None, body)
    return body


def _send(
    endpoint: str, params: Params, headers: dict[str, str]
) -> tuple[requests.Response, bytes]:
    """The answer to one call and its body."""
    try:
        with requests.get(
            f"{api_url()}/{endpoint}",
            params=params,
            headers=headers,
            timeout=TIMEOUT,
            stream=True,
            allow_redirects=False,  # the key goes nowhere else
        ) as answer:
            return answer, read_body(answer, LARGEST, time.monotonic() + TOTAL)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise RetryableYouTubeError(
            f"YouTube {endpoint}: no answer ({type(error).__name__}). Check the network and run "
            "again; what was fetched is kept."
        ) from None
    except urllib3.exceptions.HTTPError:
        raise RetryableYouTubeError(f"YouTube {endpoint}: the answer broke off") from None
    except TooSlowError:
        raise RetryableYouTubeError(
            f"YouTube {endpoint}: the answer was not whole after {TOTAL:g} seconds"
        ) from None
    except TooLargeError:
        raise YouTubeError(
            f"YouTube {endpoint}: the answer is larger than {LARGEST:,} bytes. Run again later."
        ) from None
    except requests.exceptions.InvalidHeader:
        raise YouTubeError(
            "YOUTUBE_API_KEY has characters that a key cannot have. Copy it again from "
            "https://console.cloud.google.com/apis/credentials."
        ) from None


def _answer_key(endpoint: str, params: Params) -> str:
    return fingerprint(endpoint, json.dumps(params, sort_keys=True))[:32]


def _store(
    workspace: Workspace, file: str, endpoint: str, etag: str | None, body: dict[str, Any]
) -> None:
    at, mark = datetime.now(UTC).isoformat(), _checksum(etag, body)
    stored = {"etag": etag, "body": body, "at": at, "checksum": mark}
    workspace.write(file, json.dumps(stored).encode())


def _checksum(etag: str | None, body: dict[str, Any]) -> str:
    return checksum(etag or "", json.dumps(body))


def _stored_answer(workspace: Workspace, file: str, endpoint: str) -> _Stored | None:
    try:
        stored = _Stored.model_validate(json.loads(workspace.read(file)))
    except (OSError, ValueError, RecursionError):
        return None
    if stored.checksum and stored.checksum != _checksum(stored.etag, stored.body):
        return None
    return None if problem_of(endpoint, stored.body) else stored


def _json_object(content: bytes) -> dict[str, Any] | None:
    """An object of valid Unicode: JSON can say half of a character, which no file may hold."""
    try:
        body = json.loads(content)
        text = json.dumps(body, ensure_ascii=False)
        if not text.isascii():
            body = json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _api_error(answer: requests.Response, body: dict[str, Any], endpoint: str) -> Exception:
    """The typed error for Google's JSON error body."""
    refusal = read_refusal(answer.status_code, body)
    match refusal.kind:
        case "day":
            return QuotaUsedUpError(
                f"YouTube {endpoint}: the quota of this key is used up for today ({refusal.said}). "
                "It is filled again at midnight Pacific time; what was fetched is kept, so run "
                "again then."
            )
        case "passing":
            _wait_as_told(answer.headers.get("Retry-After"))
            return RetryableYouTubeError(
                f"YouTube {endpoint}: fails now ({refusal.said}). Run again later."
            )
        case "key":
            return YouTubeError(
                f"YouTube {endpoint}: the key was refused ({refusal.said}). {refusal.mend}"
            )
    if answer.status_code == 404 and endpoint == "channels":
        return ChannelNotFoundError(
            f"channel: YouTube finds nothing under it ({refusal.said}). Check the channel."
        )
    return RefusedError(f"YouTube {endpoint}: refused ({refusal.said}).", answer.status_code)


def _wait_as_told(retry_after: str | None) -> None:
    """Honour Retry-After (seconds or a date, RFC 9110 10.2.3), at most LONGEST_WAIT seconds."""
    if not retry_after:
        return
    if re.fullmatch(r"\s*[0-9]+\s*", retry_after):
        seconds = float(retry_after)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(retry_after)
        except (ValueError, TypeError, OverflowError):
            return
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    time.sleep(min(max(seconds, 0.0), LONGEST_WAIT))
