"""Which YouTube channel is meant, by what was looked up before.

`channels/<hash of a spelling>.json` has the id that it stands for, `channels/<hash of the id>.json`
what the channel is. So a spelling that was looked up once is known without the network.
"""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict

from thumbtune.channel.source import Identity
from thumbtune.names.channel_name import ChannelName, ChannelNameError, folded, read_channel_name
from thumbtune.store.workspace import Workspace, fingerprint

KEPT_FOR = timedelta(days=14)
"""A handle can be given up and taken by others. So rarely that a unit of the quota in two weeks is
enough to see it in time."""


Kept = TypeVar("Kept", bound=BaseModel)


class YouTubeChannel(BaseModel):
    """What YouTube says of a channel."""

    model_config = ConfigDict(frozen=True)

    id: str
    uploads: str
    """The playlist of its uploads."""
    title: str = ""
    handle: str = ""
    """With its @; empty if it has none."""


class Spelling(BaseModel):
    """Which channel a spelling stood for, and when YouTube was asked."""

    model_config = ConfigDict(frozen=True)

    id: str
    at: AwareDatetime

    def is_out_of_date(self, now: datetime) -> bool:
        """Whether a handle may stand for another channel by now."""
        return not now - KEPT_FOR < self.at <= now


def channel_name(channel: str) -> ChannelName | None:
    """What a channel is called; None if that is no name that YouTube can look up."""
    try:
        return read_channel_name(channel)
    except ChannelNameError:
        return None


def known_identity(workspace: Workspace, channel: str) -> Identity:
    """Which channel is meant, by what YouTube said before."""
    name = channel_name(channel)
    if name is None:  # of a record that somebody wrote by hand
        return Identity(source="youtube", id=None, names=frozenset({channel}), called=channel)
    spelling, found = kept_channel(workspace, name)
    known = spelling.id if spelling else name.value if name.parameter == "id" else None
    return youtube_identity(name, found, known)


def youtube_identity(
    name: ChannelName, found: YouTubeChannel | None, channel_id: str | None = None
) -> Identity:
    """The identity of a channel under one of its names, with what YouTube said of it."""
    handle = found.handle if found else ""
    return Identity(
        source="youtube",
        id=found.id if found else channel_id,
        names=frozenset({name.canonical, *([folded(handle)] if handle else [])}),
        called=handle or (found.title if found else "") or name.spelled,
    )


def kept_channel(
    workspace: Workspace, name: ChannelName
) -> tuple[Spelling | None, YouTubeChannel | None]:
    """What is kept of a spelling, and of the channel that it stands for."""
    spelling = _read(workspace, _place(name.canonical, "spelling"), Spelling)
    channel_id = spelling.id if spelling else name.value if name.parameter == "id" else ""
    channel = _read(workspace, _place(channel_id, "channel"), YouTubeChannel)
    return spelling, channel


def keep_channel(workspace: Workspace, name: ChannelName, channel: YouTubeChannel) -> None:
    """Keep what YouTube said of a channel, under this name, its id and its handle."""
    workspace.write(_place(channel.id, "channel"), channel.model_dump_json().encode())
    spelling = Spelling(id=channel.id, at=datetime.now(UTC)).model_dump_json().encode()
    for spelled in {name.canonical, folded(channel.handle)} - {"", channel.id}:
        workspace.write(_place(spelled, "spelling"), spelling)


def forget_channel(workspace: Workspace, channel_id: str) -> None:
    """YouTube no longer has it: whoever names it next asks anew."""
    workspace.remove(_place(channel_id, "channel"))


def _place(name: str, kind: str) -> str:
    return f"channels/{fingerprint(kind, name)[:32]}.json"


def _read(workspace: Workspace, path: str, kind: type[Kept]) -> Kept | None:
    """A kept file; None if there is none, or it is damaged: YouTube can be asked again."""
    try:
        return kind.model_validate_json(workspace.read(path))
    except (OSError, ValueError):
        return None
