"""One call of the YouTube Data API v3: https://developers.google.com/youtube/v3/docs."""

import email.utils
import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import AwareDatetime, BaseModel

from thumbtune.channel.downloads import TooLargeError, TooSlowError, read_body
from thumbtune.channel.quota import spend
from thumbtune.channel.secrets import read_secret
from thumbtune.channel.source import Params
from thumbtune.channel.sources.youtube.answers import problem_of
from thumbtune.channel.sources.youtube.refusals import read_refusal
from thumbtune.errors import SourceError, UserError
from thumbtune.store.workspace import Workspace, checksum, fingerprint

TIMEOUT = (10, 30)  # seconds to connect and between two bytes


TOTAL = 60.0  # seconds for a whole answer


LARGEST = 20_000_000  # bytes; an answer of 50 videos has some 200,000


LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to this


Call = Callable[[str, Params], dict[str, Any]]
"""(endpoint, parameters) → the parsed answer of one API call."""


Ask = Callable[[str, Params, datetime | None], dict[str, Any]]
"""The same, with the moment since when a stored answer need not be asked for again."""


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


class QuotaUsedUpError(YouTubeError):
    """Google gives this key no more calls today."""


class RefusedError(YouTubeError):
    """The API refused what was asked for, not the key."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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
