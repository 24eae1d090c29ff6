"""Find out which YouTube channel is meant."""

from datetime import UTC, datetime, timedelta

from thumbtune.channel.quota import QuotaError
from thumbtune.channel.secrets import MissingSecretError
from thumbtune.channel.source import Params, Request, Tell
from thumbtune.channel.sources.youtube.api import (
    ChannelNotFoundError,
    RetryableYouTubeError,
    YouTubeError,
    request_api,
)
from thumbtune.channel.sources.youtube.channels import (
    Spelling,
    YouTubeChannel,
    keep_channel,
    kept_channel,
)
from thumbtune.channel.sources.youtube.listing import find_channel
from thumbtune.names.channel_name import ChannelName, read_channel_name
from thumbtune.store.workspace import Workspace, fingerprint

UNKEPT = timedelta(hours=1)
"""An answer so young is one that a killed run had no time to keep; it is not paid twice."""

CannotAskError = (RetryableYouTubeError, YouTubeError, QuotaError, MissingSecretError)
"""What keeps YouTube from answering now; what is kept must do."""


def resolve(
    workspace: Workspace,
    channel: str,
    daily_quota: int,
    tell: Tell,
    anew: bool = False,
    at_any_age: bool = False,
    request: Request = request_api,
) -> YouTubeChannel:
    """What YouTube says of a channel: as it is kept, or asked for one unit and kept.

    Of several runs that name a channel at once, one asks.

    Args:
        anew: ask in any case.
        at_any_age: what is kept will do, however old.
    """
    name = read_channel_name(channel)
    with workspace.lock(f"channels/{fingerprint(name.canonical)[:32]}.lock"):
        spelling, kept = kept_channel(workspace, name)
        known = kept and (at_any_age or not spelling or not spelling.is_out_of_date(_now()))
        if kept and known and not anew:
            return kept
        since = None if spelling or anew else _now() - UNKEPT
        try:
            found = _ask(request, workspace, channel, daily_quota, since)
        except ChannelNotFoundError:
            if not spelling:
                raise
            found = _ask(request, workspace, spelling.id, daily_quota)
            now_called = found.handle or found.title or found.id
            tell(f"YouTube no longer knows {name.spelled}; its channel is {now_called} now.")
        except CannotAskError as error:
            if not kept:
                raise
            tell(f"{name.spelled} is taken for {kept.id}, as it was when last asked: {error}")
            return kept
        _tell_if_moved(name, spelling, found, tell)
        keep_channel(workspace, name, found)
        return found


def _now() -> datetime:
    return datetime.now(UTC)


def _ask(
    request: Request,
    workspace: Workspace,
    channel: str,
    daily_quota: int,
    since: datetime | None = None,
) -> YouTubeChannel:
    def call(endpoint: str, params: Params) -> dict[str, object]:
        return request(workspace, endpoint, params, daily_quota, since)

    return find_channel(call, channel)


def _tell_if_moved(
    name: ChannelName, before: Spelling | None, found: YouTubeChannel, tell: Tell
) -> None:
    if before and before.id != found.id:
        tell(
            f"{name.spelled} belongs to another channel now: {found.id}, not {before.id}. Give "
            "the id as channel to go on with the earlier one."
        )
