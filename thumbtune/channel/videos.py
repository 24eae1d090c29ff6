"""List the channel's videos, from any source."""

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime

from thumbtune.channel.identity import forget_channel, identify_here
from thumbtune.channel.listing import Listing
from thumbtune.channel.long_form import is_short, keep_long_form
from thumbtune.channel.lookup import resolve
from thumbtune.channel.sources.folder import list_folder
from thumbtune.channel.sources.hub import list_hub
from thumbtune.channel.sources.youtube import (
    NO_PUBLIC_VIDEOS,
    ChannelNotFoundError,
    Found,
    ListCalls,
    Params,
    Request,
    close_listing,
    list_channel,
    listing_began,
    request_api,
)
from thumbtune.errors import SourceError
from thumbtune.names.channel_name import absolute_channel
from thumbtune.names.dataset_name import local_folder
from thumbtune.parameters import VideosParameters
from thumbtune.sample import CHANNEL
from thumbtune.store.workspace import Table, Workspace

logger = logging.getLogger(__name__)


def list_videos(
    workspace: Workspace,
    source: str,
    channel: str | None,
    parameters: VideosParameters,
    request: Request = request_api,
) -> Listing:
    """List the videos of a source that are of use for learning.

    A list of YouTube's that was made goes on from the stored answers until `end_listing`.

    Args:
        request: makes a call of YouTube's API.

    Raises:
        SourceError: the source cannot be read as asked, or nothing is left of it.
    """
    unusable: Counter[str] = Counter()
    to_come: list[str] = []
    work = ""
    notes: list[str] = []
    match source:
        case "youtube":
            found, work = _list_youtube(workspace, channel or "", parameters, request)
            videos, unusable, to_come = found
        case "hub":
            videos = list_hub(workspace, channel or "", notes.append)
        case _:
            videos, unusable = list_folder(_folder(source, channel), notes.append)
    limit = parameters.min_duration_seconds
    kept, more = keep_long_form(videos, limit)
    dropped = unusable + more
    if not kept:
        end_listing(workspace, source, channel, parameters)
        raise SourceError(none_left(source, dropped))
    shorts = [video.id for video in videos if is_short(video, limit)]
    return Listing(
        videos=kept,
        dropped=dict(dropped),
        shorts=shorts,
        to_come=to_come,
        work=work,
        notes=notes,
    )


def listed_as(workspace: Workspace, source: str, channel: str | None) -> str | None:
    """What a channel is listed by, so that all spellings share one list, and no two folders do.

    Of YouTube that is its id, of a folder its absolute path.
    """
    if source != "youtube":
        return channel and absolute_channel(source, channel)
    return identify_here(workspace, source, channel).id or channel


def end_listing(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> None:
    """The list is kept, so that a killed run finds it: the next one is asked for anew."""
    if source == "youtube":
        close_listing(workspace, listed_as(workspace, source, channel) or "", parameters.listing)


def listing_begins(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> datetime:
    """The time of a list that is made now; of one that a killed run has begun, when it did so."""
    if source != "youtube":
        return datetime.now(UTC)
    return listing_began(workspace, channel or "", parameters.listing)


NO_VIDEOS = {
    "youtube": f"the channel {NO_PUBLIC_VIDEOS}",
    "hub": "the dataset has no rows. Choose another dataset.",
    "folder": "the folder describes no videos. Add entries to its manifest, or let yt-dlp write an "
    "info.json for each video.",
}
"""Source → the sentence for one in which nothing was found."""

NOT_PUBLIC = {
    "youtube": "Only public videos can be read: make some public, or choose another channel.",
}
STREAMS = {"youtube": "Run again when the streams are over.", "folder": "Add videos that are over."}
MENDS: dict[str, dict[str, str]] = {
    "of ": dict.fromkeys(NO_VIDEOS, "To keep the short ones, lower videos.min_duration_seconds."),
    "private": NOT_PUBLIC,
    "unlisted": NOT_PUBLIC,
    "deleted": NOT_PUBLIC,
    "live now": STREAMS,
    "upcoming": STREAMS,
    "no length yet": {"youtube": "Run again when YouTube has stored them."},
    "no title": {"folder": "Fill in the field title.", "hub": "Fill in the column title."},
    "no thumbnail": {
        "folder": "Fill in the field image.",
        "hub": "Fill in the column image or thumbnail_url.",
    },
    "odd answer": {"youtube": "Run again later: YouTube's answers are not as documented now."},
    "not listed": {"youtube": "Run again later: YouTube's list is not whole now."},
}
"""Beginning of a reason → source → what mends it."""

OTHERWISE = {
    "youtube": "Choose another channel.",
    "hub": "Choose another dataset.",
    "folder": "Mend its entries, or choose another folder.",
}


def none_left(source: str, dropped: Counter[str]) -> str:
    """Why no video of a source can be used, and what mends that, by the reasons."""
    source = "folder" if source == "sample" else source
    if not dropped:
        return f"channel: {NO_VIDEOS[source]}"
    mends = [_mend(source, reason) for reason, _ in dropped.most_common()]
    told = dict.fromkeys(filter(None, mends)) or {OTHERWISE[source]: None}
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    return f"channel: none of {dropped.total()} videos can be used ({reasons}). {' '.join(told)}"


def _mend(source: str, reason: str) -> str:
    found = (mends for start, mends in MENDS.items() if reason.startswith(start))
    return next(found, {}).get(source, "")


def _list_youtube(
    workspace: Workspace, channel: str, parameters: VideosParameters, request: Request
) -> tuple[Found, str]:
    def ask(endpoint: str, params: Params, since: datetime | None) -> dict[str, Any]:
        return request(workspace, endpoint, params, parameters.daily_quota, since)

    quota, tell = parameters.daily_quota, logger.warning
    found = resolve(workspace, channel, quota, tell, request=request)
    calls = ListCalls(workspace, found.id, parameters.listing, ask)
    try:
        listed = list_channel(calls, found, parameters.listing, calls.mark_pages, logger.warning)
    except ChannelNotFoundError:
        forget_channel(workspace, found.id)
        raise
    logger.info("YouTube: %d quota units (%s)", calls.units.total(), dict(calls.units))
    return listed, calls.work()


def _folder(source: str, channel: str | None) -> Path:
    return CHANNEL if source == "sample" else Path(channel or "").expanduser()


class VideoList(Table):
    """Rows of `Video`, and how old they are: whoever reads them decides whether that will do."""

    listed_at: AwareDatetime
    """When the source was asked."""

    def is_younger_than(self, hours: float) -> bool:
        """Whether it was listed in the last so many hours, and not in the future."""
        return timedelta() <= datetime.now(UTC) - self.listed_at < timedelta(hours=hours)


def local_folder_of(source: str, channel: str | None) -> Path | None:
    """The folder that videos are read from, if there is one."""
    if source == "hub":
        return local_folder(channel or "")[0]
    folder = _folder(source, channel)
    return folder if source != "youtube" and folder.is_dir() else None
