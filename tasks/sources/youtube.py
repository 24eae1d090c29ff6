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
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import isodate
import requests
from prefect import task
from prefect.tasks import exponential_backoff

from tasks.retries import only_on
from tasks.secrets import read_secret
from tasks.sources import SourceError, Video
from tasks.workspace import Workspace, fingerprint, write_atomically

PAGE = 50  # the API's largest page, and the most ids in one call
TIMEOUT = (10, 30)  # seconds to connect and between two bytes
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to this

Params = dict[str, str | int]
Call = Callable[[str, Params], dict[str, Any]]
"""(endpoint, parameters) → the parsed answer of one API call."""

UNCHANGED = "thumbtune:unchanged"
"""Stands in an answer that is as it was the last time."""

QUOTA_UNITS = {"channels": 1, "playlistItems": 1, "videos": 1, "search": 100}
"""https://developers.google.com/youtube/v3/determine_quota_cost"""


class YouTubeError(Exception):
    """The API refused for good; the message says what to do."""


class RetryableYouTubeError(Exception):
    """The API failed for a passing cause: another try may help."""


class ChannelNotFoundError(SourceError):
    """There is no such channel."""


PASSING_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"}
QUOTA_REASONS = {"quotaExceeded", "dailyLimitExceeded"}
KEY_REASONS = {"keyInvalid", "keyExpired", "badRequest", "API_KEY_INVALID", "forbidden"}
KEY_REASONS |= {"accessNotConfigured", "ipRefererBlocked", "SERVICE_DISABLED"}


def channel_query(channel: str) -> Params:
    """The parameters of channels.list that find a channel.

    Args:
        channel: a channel id (UC and 22 characters), a @handle, or a URL with one of them.

    Raises:
        SourceError: it is none of these.
    """
    name = channel.strip()
    if re.match(r"^(https?://)?(www\.|m\.)?youtube\.com/", name):
        path = urlsplit(name if "://" in name else f"https://{name}").path.strip("/").split("/")
        name = path[1] if path[0] == "channel" and len(path) > 1 else path[0]
    if re.fullmatch(r"UC[\w-]{22}", name):
        return {"id": name}
    if re.fullmatch(r"@[\w.·-]{1,60}", name):
        return {"forHandle": name}
    raise SourceError(
        f"channel: {channel!r} is no channel id (UC…, 24 characters), @handle or channel URL. "
        "Open the channel on YouTube and copy its address or its @handle."
    )


def list_channel(
    call: Call, channel: str, listing: Literal["uploads", "search"]
) -> tuple[list[Video], Counter[str]]:
    """List a channel's videos, newest first.

    Args:
        call: makes one API call.

    Returns:
        The public, finished videos, and reason → number of those left out.
    """
    channel_id, uploads = find_channel(call, channel)
    listed = _uploads(call, uploads) if listing == "uploads" else _search(call, channel_id)
    return _videos(call, list(listed))


def find_channel(call: Call, channel: str) -> tuple[str, str]:
    """A channel's id and the id of its playlist of uploads.

    https://developers.google.com/youtube/v3/docs/channels/list
    """
    answer = call("channels", {"part": "contentDetails", **channel_query(channel)})
    if not answer.get("items"):
        raise ChannelNotFoundError(
            f"channel: YouTube knows no channel {channel!r}. Check the spelling, or copy the "
            "address of the channel's page."
        )
    found = answer["items"][0]
    return found["id"], found["contentDetails"]["relatedPlaylists"]["uploads"]


class Listed(NamedTuple):
    """A video as a list names it."""

    id: str
    is_private: bool


def _uploads(call: Call, playlist: str) -> Iterator[Listed]:
    """https://developers.google.com/youtube/v3/docs/playlistItems/list"""
    params: Params = {"part": "contentDetails,status", "playlistId": playlist, "maxResults": PAGE}
    for item in _items(call, "playlistItems", params):
        privacy = item.get("status", {}).get("privacyStatus")
        yield Listed(item["contentDetails"]["videoId"], is_private=privacy == "private")


def _search(call: Call, channel_id: str) -> Iterator[Listed]:
    """The article's way. https://developers.google.com/youtube/v3/docs/search/list"""
    params: Params = {
        "part": "snippet,id",
        "channelId": channel_id,
        "order": "date",
        "maxResults": PAGE,
    }
    for item in _items(call, "search", params):
        if item["id"]["kind"] == "youtube#video":
            yield Listed(item["id"]["videoId"], is_private=False)


def _items(call: Call, endpoint: str, params: Params) -> Iterator[dict[str, Any]]:
    """The items of all pages."""
    seen: set[str] = set()
    token: str | None = None
    while True:
        answer = call(endpoint, {**params, **({"pageToken": token} if token else {})})
        yield from answer.get("items", [])
        token = answer.get("nextPageToken")
        if not token or token in seen:  # a repeated token would go round for ever
            return
        seen.add(token)


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
        answer = call("videos", {"part": "snippet,contentDetails,status", "id": ids})
        found = {item["id"]: item for item in answer.get("items", [])}
        for entry in asked:
            reason = _unusable(entry, found.get(entry.id))
            if reason:
                dropped[reason] += 1
            else:
                videos.append(_video(found[entry.id]))
    return videos, dropped


def _unusable(entry: Listed, item: dict[str, Any] | None) -> str | None:
    """Why a video is left out, or None. One that is listed but not shown is private or gone."""
    if item is None:
        return "private" if entry.is_private else "deleted"
    if item.get("status", {}).get("privacyStatus", "public") != "public":
        return str(item["status"]["privacyStatus"])
    return {"live": "live now", "upcoming": "upcoming"}.get(
        item["snippet"].get("liveBroadcastContent", "none")
    )


def _video(item: dict[str, Any]) -> Video:
    snippet = item["snippet"]
    thumbnails = snippet.get("thumbnails", {})
    widest_first = sorted(thumbnails, key=lambda name: -thumbnails[name].get("width", 0))
    return Video(
        id=item["id"],
        title=snippet["title"].strip(),
        thumbnails={name: thumbnails[name]["url"] for name in widest_first},
        duration_seconds=_seconds(item.get("contentDetails", {}).get("duration")),
        published_at=snippet.get("publishedAt"),
    )


def _seconds(duration: str | None) -> float | None:
    try:
        return isodate.parse_duration(duration).total_seconds() if duration else None
    except isodate.ISO8601Error:
        return None


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


def request_api(workspace: Workspace, endpoint: str, params: Params) -> dict[str, Any]:
    """Make one API call; an answer that has not changed since the last time is not sent again.

    The key goes in a header, so it is in no URL and no log.

    Raises:
        RetryableYouTubeError: 5xx, 429, a rate limit, a time-out, a broken connection or answer.
        YouTubeError: quota used up, wrong key, no permission; the message tells the mend.
    """
    file = workspace.root / "youtube" / f"{_answer_key(endpoint, params)}.json"
    stored = _stored_answer(file)
    headers = {"X-Goog-Api-Key": read_secret("YOUTUBE_API_KEY")}
    if stored:
        headers["If-None-Match"] = stored["etag"]
    try:
        answer = requests.get(
            f"{api_url()}/{endpoint}",
            params=params,
            headers=headers,
            timeout=TIMEOUT,
            allow_redirects=False,  # the key goes nowhere else
        )
    except (requests.ConnectionError, requests.Timeout) as error:
        raise RetryableYouTubeError(
            f"YouTube {endpoint}: no answer ({type(error).__name__}). Check the network and run "
            "again; what was fetched is kept."
        ) from None
    except requests.exceptions.ChunkedEncodingError:
        raise RetryableYouTubeError(f"YouTube {endpoint}: the answer broke off") from None
    except requests.exceptions.InvalidHeader:
        raise YouTubeError(
            "YOUTUBE_API_KEY has characters that a key cannot have. Copy it again from "
            "https://console.cloud.google.com/apis/credentials."
        ) from None
    if answer.status_code == 304 and stored:
        return {**stored["body"], UNCHANGED: True}
    body = _json_object(answer, endpoint)
    if answer.status_code != 200:
        raise _api_error(answer, body, endpoint)
    etag = answer.headers.get("ETag") or body.get("etag")
    if etag:
        write_atomically(file, json.dumps({"etag": etag, "body": body}).encode())
    return body


def _answer_key(endpoint: str, params: Params) -> str:
    return fingerprint(endpoint, json.dumps(params, sort_keys=True))[:32]


def _stored_answer(file: Any) -> dict[str, Any] | None:
    try:
        stored = json.loads(file.read_bytes())
        return stored if isinstance(stored["etag"], str) and stored["body"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _json_object(answer: requests.Response, endpoint: str) -> dict[str, Any]:
    try:
        body = answer.json()
    except requests.exceptions.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        return body
    if answer.status_code == 200:
        raise RetryableYouTubeError(f"YouTube {endpoint}: the answer is no whole JSON object")
    return {}


def _api_error(answer: requests.Response, body: dict[str, Any], endpoint: str) -> Exception:
    """The typed error for Google's JSON error body.

    https://developers.google.com/youtube/v3/docs/errors
    """
    error = body.get("error") or {}
    reasons = {str(entry.get("reason")) for entry in error.get("errors", [])}
    reasons |= {str(entry.get("reason")) for entry in error.get("details", [])}
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
            f"YouTube {endpoint}: the key was refused ({said}: {error.get('message', '')!r}). "
            "Set YOUTUBE_API_KEY to a key of a project in which the YouTube Data API v3 is "
            "enabled: https://console.cloud.google.com/apis/credentials."
        )
    if answer.status_code == 404:
        return ChannelNotFoundError(
            f"channel: YouTube {endpoint} finds nothing under it ({said}). Check the channel."
        )
    return YouTubeError(f"YouTube {endpoint}: refused ({said}: {error.get('message', '')!r}).")


def _wait_as_told(retry_after: str | None) -> None:
    """Honour Retry-After (seconds or a date, RFC 9110 10.2.3), at most LONGEST_WAIT seconds."""
    if not retry_after:
        return
    if retry_after.strip().isdigit():
        seconds = float(retry_after)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(retry_after)
        except ValueError:
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
def call_youtube(workspace: Workspace, endpoint: str, params: Params) -> dict[str, Any]:
    """One API call, with retries for what passes."""
    return request_api(workspace, endpoint, params)
