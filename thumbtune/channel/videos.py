"""List the channel's videos, from any source."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime

from thumbtune.channel.listing import Listing
from thumbtune.channel.long_form import is_short, keep_long_form
from thumbtune.channel.registry import Registry
from thumbtune.channel.source import Request, source_of
from thumbtune.channel.sources.youtube.api import request_api
from thumbtune.channel.views import Views, keep_views
from thumbtune.errors import SourceError
from thumbtune.parameters import VideosParameters
from thumbtune.store.workspace import Table, Workspace

TOO_SHORT = "of "
"""How the reason begins for which shorts are left out."""


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
    begun = listing_begins(workspace, source, channel, parameters)
    found = source_of(source).list_videos(workspace, channel or "", parameters, request)
    if found.views:
        registry = Registry(workspace, source, channel)
        keep_views(registry, Views(read_at=begun, counts=found.views))
    limit = parameters.min_duration_seconds
    kept, more = keep_long_form(found.videos, limit)
    dropped = Counter(found.dropped) + more
    if not kept:
        end_listing(workspace, source, channel, parameters)
        raise SourceError(none_left(source, dropped))
    shorts = [video.id for video in found.videos if is_short(video, limit)]
    update = {"videos": kept, "dropped": dict(dropped), "shorts": shorts}
    return found.model_copy(update=update)


def listed_as(workspace: Workspace, source: str, channel: str | None) -> str | None:
    """What a channel is listed by, so that all spellings share one list, and no two folders do."""
    return source_of(source).listed_as(workspace, channel or "") or None


def end_listing(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> None:
    """The list is kept, so that a killed run finds it: the next one is asked for anew."""
    source_of(source).end_list(workspace, channel or "", parameters)


def listing_begins(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> datetime:
    """The time of a list that is made now; of one that a killed run has begun, when it did so."""
    return source_of(source).list_began(workspace, channel or "", parameters)


def none_left(source: str, dropped: Counter[str]) -> str:
    """Why no video of a source can be used, and what mends that, by the reasons."""
    its = source_of(source)
    if not dropped:
        return f"channel: {its.empty}"
    known = {TOO_SHORT: "To keep the short ones, lower videos.min_duration_seconds.", **its.mends}
    mends = [
        next((mend for start, mend in known.items() if reason.startswith(start)), "")
        for reason, _ in dropped.most_common()
    ]
    told = dict.fromkeys(filter(None, mends)) or {its.otherwise: None}
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    return f"channel: none of {dropped.total()} videos can be used ({reasons}). {' '.join(told)}"


class VideoList(Table):
    """Rows of `Video`, and how old they are: whoever reads them decides whether that will do."""

    listed_at: AwareDatetime
    """When the source was asked."""

    def is_younger_than(self, hours: float) -> bool:
        """Whether it was listed in the last so many hours, and not in the future."""
        return timedelta() <= datetime.now(UTC) - self.listed_at < timedelta(hours=hours)
