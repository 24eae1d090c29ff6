"""Source `youtube`: a channel's videos from the YouTube Data API v3.

https://developers.google.com/youtube/v3/docs. A channel of 121 videos costs 7 quota units by its
uploads playlist (1 for the channel, then 1 for every 50 videos, twice), and 421 the article's way.
"""

import logging
from datetime import datetime
from typing import Any
from urllib.parse import quote

from thumbtune.channel.listing import Listing
from thumbtune.channel.source import Identity, Params, ReadSecret, Request, Source, Tell
from thumbtune.channel.sources.youtube.channels import channel_name, forget_channel, known_identity
from thumbtune.channel.sources.youtube.refusals import NO_PUBLIC_VIDEOS
from thumbtune.names.channel_name import read_channel_name
from thumbtune.parameters import TrainParameters, VideosParameters
from thumbtune.store.workspace import Workspace

logger = logging.getLogger(__name__)

NOT_PUBLIC = "Only public videos can be read: make some public, or choose another channel."
STREAMS = "Run again when the streams are over."

# What asks YouTube is imported where it is used: a folder of videos needs none of it.


class YouTube(Source):
    """A channel of YouTube, by its id, @handle or address."""

    name = "youtube"
    channel_is = "a channel id, @handle or URL"
    empty = f"the channel {NO_PUBLIC_VIDEOS}"
    mends = {  # noqa: RUF012 - it is a constant
        "private": NOT_PUBLIC,
        "unlisted": NOT_PUBLIC,
        "deleted": NOT_PUBLIC,
        "live now": STREAMS,
        "upcoming": STREAMS,
        "no length yet": "Run again when YouTube has stored them.",
        "odd answer": "Run again later: YouTube's answers are not as documented now.",
        "not listed": "Run again later: YouTube's list is not whole now.",
    }

    def check_spelling(self, channel: str) -> None:
        """Raise ChannelNameError if YouTube could not look it up."""
        read_channel_name(channel)

    def canonical(self, channel: str) -> str:
        """A handle without capitals, or an id."""
        name = channel_name(channel)
        return name.canonical if name else channel

    def short_name(self, channel: str) -> str:
        """The @handle, if it was given."""
        name = channel_name(channel)
        return name.spelled if name else super().short_name(channel)

    def address_of(self, video_id: str) -> str:
        """Its page."""
        return f"https://www.youtube.com/watch?v={quote(video_id)}"

    def identity(self, workspace: Workspace, channel: str) -> Identity:
        """By what YouTube said of it before."""
        return known_identity(workspace, channel)

    def is_spelled_alike(self, channel: str, other: str) -> bool:
        """Whether both are one name."""
        first, second = channel_name(channel), channel_name(other)
        return bool(first and second and first.canonical == second.canonical)

    def check(self, parameters: TrainParameters, read: ReadSecret, tell: Tell) -> None:
        """Raise MissingSecretError if there is no key."""
        read("YOUTUBE_API_KEY")

    def look_up(
        self, workspace: Workspace, parameters: TrainParameters, request: Request, at_any_age: bool
    ) -> None:
        """A channel that is known costs nothing, a new one a unit of the quota."""
        from thumbtune.channel.sources.youtube.lookup import resolve

        quota, anew = parameters.videos.daily_quota, parameters.refresh and not at_any_age
        channel = parameters.channel or ""
        resolve(workspace, channel, quota, logger.warning, anew, at_any_age, request)

    def listed_as(self, workspace: Workspace, channel: str) -> str:
        """Its id."""
        return self.identity(workspace, channel).id or channel

    def list_videos(
        self, workspace: Workspace, channel: str, parameters: VideosParameters, request: Request
    ) -> Listing:
        """A list that was made goes on from the stored answers until `end_list`."""
        from thumbtune.channel.sources.youtube.api import ChannelNotFoundError
        from thumbtune.channel.sources.youtube.listing import list_channel
        from thumbtune.channel.sources.youtube.lookup import resolve
        from thumbtune.channel.sources.youtube.unfinished import ListCalls

        quota, listing, tell = parameters.daily_quota, parameters.listing, logger.warning

        def ask(endpoint: str, params: Params, since: datetime | None) -> dict[str, Any]:
            return request(workspace, endpoint, params, quota, since)

        found = resolve(workspace, channel, quota, tell, request=request)
        calls = ListCalls(workspace, found.id, listing, ask)
        try:
            listed = list_channel(calls, found, listing, calls.mark_pages, tell)
        except ChannelNotFoundError:
            forget_channel(workspace, found.id)
            raise
        logger.info("YouTube: %d quota units (%s)", calls.units.total(), dict(calls.units))
        return Listing(
            videos=listed.videos,
            dropped=listed.dropped,
            to_come=listed.to_come,
            work=calls.work(),
            views=listed.views,
        )

    def list_began(
        self, workspace: Workspace, channel: str, parameters: VideosParameters
    ) -> datetime:
        """When the unfinished list was begun, if there is one."""
        from thumbtune.channel.sources.youtube.unfinished import listing_began

        return listing_began(workspace, channel, parameters.listing)

    def end_list(self, workspace: Workspace, channel: str, parameters: VideosParameters) -> None:
        """The stored answers are asked for anew."""
        from thumbtune.channel.sources.youtube.unfinished import close_listing

        close_listing(workspace, self.listed_as(workspace, channel), parameters.listing)

    def newest(self, identity: Identity, tell: Tell) -> list[str]:
        """By YouTube's feed, which wants neither key nor quota."""
        from thumbtune.channel.sources.youtube.feed import FeedError, newest_videos

        try:
            return newest_videos(identity.id or "")
        except FeedError as error:
            tell(f"The feed of {identity.called} cannot be read ({error}); asking the API")
            return []
