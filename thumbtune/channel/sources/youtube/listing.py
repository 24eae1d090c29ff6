"""A channel's list of videos, and what each of them is."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from thumbtune.channel.listing import Video
from thumbtune.channel.source import Params
from thumbtune.channel.sources.fields import parse_duration
from thumbtune.channel.sources.youtube.answers import (
    VIDEO,
    Answer,
    ChannelItem,
    PlaylistItem,
    SearchResult,
    VideoItem,
    first_problem,
    name_of,
)
from thumbtune.channel.sources.youtube.api import (
    Call,
    ChannelNotFoundError,
    QuotaUsedUpError,
    RefusedError,
    RetryableYouTubeError,
    YouTubeError,
    origin_of,
)
from thumbtune.channel.sources.youtube.channels import YouTubeChannel
from thumbtune.channel.sources.youtube.refusals import NO_PUBLIC_VIDEOS
from thumbtune.errors import SourceError
from thumbtune.names.channel_name import channel_query

PAGE = 50  # the API's largest page, and the most ids in one call
IDLE_PAGES = 3  # in a row without anything new; a search may have an empty page in its middle
PAGES = 2000  # of one list; an endless one must end. YouTube lists 20,000 videos at most
READINGS = 4  # of one list in one run, if it changes while it is read
UPLOADS_LISTED = 20_000  # videos of a channel that YouTube lists at most
SEARCH_LISTED = 500  # results that a search gives at most
NAMED = 3  # of several things, so many are told by their names


TO_COME = {"live": "live now", "upcoming": "upcoming"}
"""`liveBroadcastContent` → the reason for which a video is not learned from yet."""
NO_LENGTH = "P0D"
"""The duration of what is upcoming, or live, or over and not stored yet."""
NO_LENGTH_YET = "no length yet"


class NoVideosError(SourceError):
    """The channel has no public videos."""


class Found(NamedTuple):
    """What a channel has."""

    videos: list[Video]
    """The public, finished ones."""
    dropped: Counter[str]
    """Reason → number of those left out."""
    to_come: list[str]
    """Ids of those that are left out until they are over: premieres and streams."""
    views: dict[str, int]
    """Id → how often it was watched, where that is told."""


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
    videos, to_come, views = [], [], {}
    odd = [Odd(name, "it names no video") for name in read.odd]
    for start in range(0, len(distinct), PAGE):
        asked = distinct[start : start + PAGE]
        ids = ",".join(entry.id for entry in asked)
        answer = call("videos", {"part": "snippet,contentDetails,status,statistics", "id": ids})
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
                views[entry.id] = found[entry.id].views
    if odd:
        dropped[_reason_of(odd)] = len(odd)
        told = ", ".join(f"{item.name:.40} ({item.problem})" for item in odd[:10])
        tell(f"YouTube: {len(odd)} videos are left out, for their answers are odd: {told}")
    counted = {id_: count for id_, count in views.items() if count is not None}
    return Found(videos, dropped, to_come, counted)


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
