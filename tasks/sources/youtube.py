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
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from prefect import task
from prefect.tasks import exponential_backoff
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from pydantic_core import PydanticSerializationError

from tasks.channels import YouTubeChannel
from tasks.downloads import TooLargeError, TooSlowError, read_body
from tasks.errors import UserError
from tasks.quota import spend
from tasks.retries import only_on
from tasks.secrets import read_secret
from tasks.sources import SourceError, Video, parse_duration
from tasks.sources.channel_name import channel_query
from tasks.workspace import Workspace, fingerprint

PAGE = 50  # the API's largest page, and the most ids in one call
TIMEOUT = (10, 30)  # seconds to connect and between two bytes
TOTAL = 60.0  # seconds for a whole answer
LARGEST = 20_000_000  # bytes; an answer of 50 videos has some 200,000
IDLE_PAGES = 3  # in a row without anything new; a search may have an empty page in its middle
PAGES = 2000  # of one list; an endless one must end. YouTube lists 20,000 videos at most
RESUMABLE = timedelta(hours=48)  # a list that was begun longer ago is begun again
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to this

Params = dict[str, str | int]
Call = Callable[[str, Params], dict[str, Any]]
"""(endpoint, parameters) → the parsed answer of one API call."""

Origin = Literal["fetched", "unchanged", "kept"]
"""How an answer came: new, as it was the last time, or kept from a list begun just before."""

ORIGIN = "thumbtune:origin"
"""Where an answer that was not fetched anew tells its origin."""

QUOTA_UNITS = {"channels": 1, "playlistItems": 1, "videos": 1, "search": 100}
"""https://developers.google.com/youtube/v3/determine_quota_cost"""


class YouTubeError(UserError):
    """The API refused for good; the message says what to do."""


class RetryableYouTubeError(UserError):
    """The API failed for a passing cause: another try may help."""


class ChannelNotFoundError(SourceError):
    """There is no such channel."""


PASSING_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"}
QUOTA_REASONS = {"quotaExceeded", "dailyLimitExceeded"}
KEY_REASONS = {"keyInvalid", "keyExpired", "badRequest", "API_KEY_INVALID", "forbidden"}
KEY_REASONS |= {"accessNotConfigured", "ipRefererBlocked", "SERVICE_DISABLED"}


class _Playlists(BaseModel):
    uploads: str


class _ChannelDetails(BaseModel):
    related_playlists: _Playlists = Field(alias="relatedPlaylists")


class _ChannelSnippet(BaseModel):
    title: str | None = None
    custom_url: str | None = Field(None, alias="customUrl")


class _Channel(BaseModel):
    id: str
    snippet: _ChannelSnippet = _ChannelSnippet()
    details: _ChannelDetails = Field(alias="contentDetails")


class _Status(BaseModel):
    privacy: str = Field("public", alias="privacyStatus")


class _PlaylistItemDetails(BaseModel):
    video_id: str = Field(alias="videoId")


class _PlaylistItem(BaseModel):
    details: _PlaylistItemDetails = Field(alias="contentDetails")
    status: _Status = _Status()


class _ResultId(BaseModel):
    kind: str
    video_id: str = Field("", alias="videoId")


class _SearchResult(BaseModel):
    id: _ResultId


class _Thumbnail(BaseModel):
    url: str
    width: int = 0


class _Snippet(BaseModel):
    title: str
    live: str = Field("none", alias="liveBroadcastContent")
    thumbnails: dict[str, _Thumbnail] = {}
    published_at: str | None = Field(None, alias="publishedAt")


class _VideoDetails(BaseModel):
    duration: str | None = None


class _Video(BaseModel):
    id: str
    snippet: _Snippet
    details: _VideoDetails = Field(_VideoDetails(), alias="contentDetails")
    status: _Status = _Status()


class _Channels(BaseModel):
    items: list[_Channel] = []


class _Videos(BaseModel):
    items: list[_Video] = []


class _PlaylistPage(BaseModel):
    items: list[_PlaylistItem] = []
    next_page: str | None = Field(None, alias="nextPageToken")


class _SearchPage(BaseModel):
    items: list[_SearchResult] = []
    next_page: str | None = Field(None, alias="nextPageToken")


ANSWERS: dict[str, type[BaseModel]] = {
    "channels": _Channels,
    "playlistItems": _PlaylistPage,
    "search": _SearchPage,
    "videos": _Videos,
}
"""What is used of each endpoint's answer; an answer of other types is not stored."""


def list_channel(
    call: Call, channel: YouTubeChannel, listing: Literal["uploads", "search"]
) -> tuple[list[Video], Counter[str]]:
    """List a channel's videos, newest first.

    Args:
        call: makes one API call.

    Returns:
        The public, finished videos, and reason → number of those left out.
    """
    listed = _uploads(call, channel.uploads) if listing == "uploads" else _search(call, channel.id)
    return _videos(call, list(listed))


def find_channel(call: Call, channel: str) -> YouTubeChannel:
    """What YouTube says of a channel, given in any spelling.

    https://developers.google.com/youtube/v3/docs/channels/list
    """
    answer = _Channels.model_validate(
        call("channels", {"part": "contentDetails,snippet", **channel_query(channel)})
    )
    if not answer.items:
        raise ChannelNotFoundError(
            f"channel: YouTube knows no channel {channel!r}. Check the spelling, or copy the "
            "address of the channel's page."
        )
    found = answer.items[0]
    handle = found.snippet.custom_url or ""  # of some channels an address of an older kind
    return YouTubeChannel(
        id=found.id,
        uploads=found.details.related_playlists.uploads,
        title=found.snippet.title or "",
        handle=handle if handle.startswith("@") else "",
    )


class Listed(NamedTuple):
    """A video as a list names it."""

    id: str
    is_private: bool


def _uploads(call: Call, playlist: str) -> Iterator[Listed]:
    """https://developers.google.com/youtube/v3/docs/playlistItems/list"""
    params: Params = {"part": "contentDetails,status", "playlistId": playlist, "maxResults": PAGE}
    for answer in _pages(call, "playlistItems", params):
        for item in _PlaylistPage.model_validate(answer).items:
            yield Listed(item.details.video_id, is_private=item.status.privacy == "private")


def _search(call: Call, channel_id: str) -> Iterator[Listed]:
    """The article's way. https://developers.google.com/youtube/v3/docs/search/list"""
    params: Params = {
        "part": "snippet,id",
        "channelId": channel_id,
        "order": "date",
        "maxResults": PAGE,
    }
    for answer in _pages(call, "search", params):
        for item in _SearchPage.model_validate(answer).items:
            if item.id.kind == "youtube#video" and item.id.video_id:
                yield Listed(item.id.video_id, is_private=False)


def _pages(call: Call, endpoint: str, params: Params) -> Iterator[dict[str, Any]]:
    """The answers of all pages; tokens that go round, or on and on without anything new, end it."""
    tokens: set[str] = set()
    items: set[str] = set()
    token: str | None = None
    idle = 0
    for _ in range(PAGES):
        answer = call(endpoint, {**params, **({"pageToken": token} if token else {})})
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


def _videos(call: Call, listed: list[Listed]) -> tuple[list[Video], Counter[str]]:
    """https://developers.google.com/youtube/v3/docs/videos/list"""
    distinct = list({entry.id: entry for entry in listed}.values())
    dropped: Counter[str] = Counter()
    if len(listed) > len(distinct):
        dropped["listed twice"] = len(listed) - len(distinct)
    videos = []
    for start in range(0, len(distinct), PAGE):
        asked = distinct[start : start + PAGE]
        ids = ",".join(entry.id for entry in asked)
        answer = _Videos.model_validate(
            call("videos", {"part": "snippet,contentDetails,status", "id": ids})
        )
        found = {item.id: item for item in answer.items}
        for entry in asked:
            reason = _unusable(entry, found.get(entry.id))
            if reason:
                dropped[reason] += 1
            else:
                videos.append(_video(found[entry.id]))
    return videos, dropped


def _unusable(entry: Listed, item: _Video | None) -> str | None:
    """Why a video is left out, or None. One that is listed but not shown is private or gone."""
    if item is None:
        return "private" if entry.is_private else "deleted"
    if item.status.privacy != "public":
        return item.status.privacy
    return {"live": "live now", "upcoming": "upcoming"}.get(item.snippet.live)


def _video(item: _Video) -> Video:
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


def open_listing(workspace: Workspace, channel: str, listing: str) -> datetime:
    """Begin a list of a channel, given by its id, or go on with one that was not ended.

    Returns:
        When the list was begun: answers that were stored since then need not be asked for again.
    """
    file = _unfinished(channel, listing)
    now = datetime.now(UTC)
    since = _begun(workspace, file)
    if since is None or not now - RESUMABLE < since <= now:
        since = now
        workspace.write(file, since.isoformat().encode())
    return since


def close_listing(workspace: Workspace, channel: str, listing: str) -> None:
    """Whoever asked for the list has kept it; the next one is asked for anew."""
    workspace.remove(_unfinished(channel, listing))


def _unfinished(channel: str, listing: str) -> str:
    return f"youtube-unfinished/{fingerprint(channel, listing)[:32]}.txt"


def _begun(workspace: Workspace, file: str) -> datetime | None:
    try:
        begun = datetime.fromisoformat(workspace.read(file).decode())
    except (OSError, ValueError):
        return None
    return begun if begun.tzinfo else None


def origin_of(answer: dict[str, Any]) -> Origin:
    """How an answer came."""
    origin: Origin = answer.get(ORIGIN, "fetched")
    return origin


class _Stored(BaseModel):
    """An answer as it is kept."""

    etag: str | None
    body: dict[str, Any]
    at: AwareDatetime


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
    if problem := _problem(endpoint, body):
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
    stored = _Stored(etag=etag, body=body, at=datetime.now(UTC))
    try:
        data = stored.model_dump_json().encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        raise RetryableYouTubeError(
            f"YouTube {endpoint}: the answer is not as documented: it cannot be written as JSON"
        ) from None
    workspace.write(file, data)


def _stored_answer(workspace: Workspace, file: str, endpoint: str) -> _Stored | None:
    try:
        stored = _Stored.model_validate_json(workspace.read(file))
    except (OSError, ValueError):
        return None
    return None if _problem(endpoint, stored.body) else stored


def _problem(endpoint: str, body: dict[str, Any]) -> str | None:
    """The first field of an answer that is missing or of a wrong type."""
    try:
        ANSWERS[endpoint].model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


class _Reason(BaseModel):
    reason: str = ""


class _Error(BaseModel):
    message: str = ""
    errors: list[_Reason] = []
    details: list[_Reason] = []


def _error_in(body: dict[str, Any]) -> _Error:
    try:
        return _Error.model_validate(body.get("error") or {})
    except ValidationError:
        return _Error()


def _api_error(answer: requests.Response, body: dict[str, Any], endpoint: str) -> Exception:
    """The typed error for Google's JSON error body.

    https://developers.google.com/youtube/v3/docs/errors
    """
    error = _error_in(body)
    reasons = {entry.reason for entry in (*error.errors, *error.details)} - {""}
    said = f"HTTP {answer.status_code}, {', '.join(sorted(reasons)) or 'no reason given'}"
    if reasons & QUOTA_REASONS:
        return YouTubeError(
            f"YouTube {endpoint}: the quota of this key is used up for today ({said}). It is "
            "filled again at midnight Pacific time; what was fetched is kept, so run again then."
        )
    if answer.status_code == 429 or answer.status_code >= 500 or reasons & PASSING_REASONS:
        _wait_as_told(answer.headers.get("Retry-After"))
        return RetryableYouTubeError(f"YouTube {endpoint}: fails now ({said}). Run again later.")
    if answer.status_code in (400, 401, 403) and (reasons & KEY_REASONS or not reasons):
        return YouTubeError(
            f"YouTube {endpoint}: the key was refused ({said}: {error.message!r}). "
            "Set YOUTUBE_API_KEY to a key of a project in which the YouTube Data API v3 is "
            "enabled: https://console.cloud.google.com/apis/credentials."
        )
    if answer.status_code == 404:
        return ChannelNotFoundError(
            f"channel: YouTube {endpoint} finds nothing under it ({said}). Check the channel."
        )
    return YouTubeError(f"YouTube {endpoint}: refused ({said}: {error.message!r}).")


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


@task(
    name="call-youtube",
    retries=4,
    retry_delay_seconds=exponential_backoff(
        float(os.environ.get("THUMBTUNE_YOUTUBE_BACKOFF_SECONDS", "2"))
    ),
    retry_jitter_factor=0.5,
    retry_condition_fn=only_on(RetryableYouTubeError),
    persist_result=False,
)
def call_youtube(
    workspace: Workspace,
    endpoint: str,
    params: Params,
    daily_quota: int,
    since: datetime | None = None,
) -> dict[str, Any]:
    """One API call, with retries for what passes."""
    return request_api(workspace, endpoint, params, daily_quota, since)
