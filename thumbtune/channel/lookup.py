"""Find out which channel is meant, before anything is locked, listed or kept under it."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from thumbtune.channel.identity import (
    Identity,
    Spelling,
    YouTubeChannel,
    identify_here,
    keep_channel,
    kept_channel,
)
from thumbtune.channel.quota import QuotaError
from thumbtune.channel.registry import Registry
from thumbtune.channel.secrets import MissingSecretError
from thumbtune.channel.sources.youtube import (
    ChannelNotFoundError,
    Params,
    Request,
    RetryableYouTubeError,
    YouTubeError,
    find_channel,
    request_api,
)
from thumbtune.names.channel_name import ChannelName, read_channel_name
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace, fingerprint

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]
"""Takes a sentence for the log."""

UNKEPT = timedelta(hours=1)
"""An answer so young is one that a killed run had no time to keep; it is not paid twice."""

CannotAskError = (RetryableYouTubeError, YouTubeError, QuotaError, MissingSecretError)
"""What keeps YouTube from answering now; what is kept must do."""


def identify(
    workspace: Workspace,
    parameters: TrainParameters,
    request: Request = request_api,
    at_any_age: bool = False,
) -> Identity:
    """Look a channel up, if it is not known yet, and take its registry.

    A YouTube channel that is known costs nothing, a new one a unit of the quota. A handle may go
    to another channel, so it is looked up again when what is kept is out of date.

    Args:
        request: makes a call of YouTube's API.
        at_any_age: what is kept will do, however old.

    Raises:
        ChannelNotFoundError: there is no such channel.
    """
    source, channel = parameters.source, parameters.channel
    if source == "youtube":
        quota, anew = parameters.videos.daily_quota, parameters.refresh and not at_any_age
        resolve(workspace, channel or "", quota, logger.warning, anew, at_any_age, request)
    registry = Registry(workspace, source, channel)
    for other in registry.claim():
        logger.warning(
            f"registry/{other} is of the same channel as registry/{registry.name}, whose champion "
            "is newer. Only that one is used; nothing was deleted."
        )
    return identify_here(workspace, source, channel)


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
