"""Which channel is meant: a channel is its id, however it is spelled.

A YouTube channel is its channel id, a folder the path that leads there in the end, a dataset of the
hub its name, in which capitals do not count. What YouTube said of a channel is kept in `channels/`:
`channels/<hash of a spelling>.json` has the id that it stands for, `channels/<hash of the id>.json`
what the channel is. So a spelling that was looked up once is known without the network.
"""

import json
import os
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict

from thumbtune.names.channel_name import (
    ChannelName,
    ChannelNameError,
    absolute_channel,
    folded,
    read_channel_name,
)
from thumbtune.names.dataset_name import local_folder
from thumbtune.store.workspace import Table, Workspace, fingerprint

KEPT_FOR = timedelta(days=14)
"""A handle can be given up and taken by others. So rarely that a unit of the quota in two weeks is
enough to see it in time."""

LONGEST = 40  # characters of a channel's name in the name of a folder

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


class Identity(BaseModel):
    """What makes a channel one, and how it is called."""

    model_config = ConfigDict(frozen=True)

    source: str
    id: str | None
    """None for a YouTube channel that was never looked up: then its names tell."""
    names: frozenset[str] = frozenset()
    """Canonical spellings of a YouTube channel."""
    called: str
    """For people."""

    def is_same(self, other: "Identity") -> bool:
        """Whether both are one channel, as far as is known here."""
        if self.source != other.source:
            return False
        if self.id is not None and other.id is not None:
            return self.id == other.id
        return bool(self.names & other.names)

    @property
    def folder(self) -> str:
        """Name of a new folder for it: readable, and different for different channels."""
        if self.id is None:
            return registry_name(self.source, self.called)
        return f"{_readable(self.called)}-{fingerprint(self.source, self.id)[:12]}"


def short_name(source: str, channel: str | None) -> str:
    """How people call a channel: @handle, or a folder without the way there."""
    if source == "youtube" and (name := _channel_name(channel)):
        return name.spelled
    return (channel or source).rstrip("/").rpartition("/")[2]


def registry_name(source: str, channel: str | None) -> str:
    """Name of a folder for a channel by its spelling alone, equal for equal spellings."""
    name = _channel_name(channel) if source == "youtube" else None
    spelling = name.canonical if name else channel or ""
    return f"{_readable(short_name(source, spelling))}-{fingerprint(source, spelling)[:8]}"


def _readable(name: str) -> str:
    """The letters of a name, those of any script, that no file system objects to."""
    kept = (c if unicodedata.category(c)[0] in "LMN" or c in "_.-" else "-" for c in name)
    return re.sub("-+", "-", "".join(kept))[:LONGEST].strip("-.") or "channel"


def _channel_name(channel: str | None) -> ChannelName | None:
    try:
        return read_channel_name(channel or "")
    except ChannelNameError:
        return None


def identify_here(workspace: Workspace, source: str, channel: str | None) -> Identity:
    """Which channel is meant, by what is known on this machine and in the workspace."""
    if source == "youtube":
        return _youtube_identity(workspace, channel or "")
    local_id = _local_id(source, channel or "")
    return Identity(source=source, id=local_id, called=short_name(source, local_id))


def _youtube_identity(workspace: Workspace, channel: str) -> Identity:
    name = _channel_name(channel)
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


def spelled_alike(source: str, channel: str | None, source_2: str, channel_2: str | None) -> bool:
    """Whether two channels are one by their spelling alone."""
    if source != source_2:
        return False
    if source != "youtube":
        return _local_id(source, channel or "") == _local_id(source, channel_2 or "")
    first, second = _channel_name(channel), _channel_name(channel_2)
    return bool(first and second and first.canonical == second.canonical)


def _local_id(source: str, channel: str) -> str:
    """What a folder or a dataset is, whatever way leads there."""
    if source == "sample":
        return ""
    if source == "folder" or local_folder(channel)[0]:
        return absolute_channel(source, channel)
    return channel.strip().strip("/").casefold()


def recorded_channel(workspace: Workspace, source: str, channel: str, examples: Table) -> str:
    """Which folder was meant by a relative path that an earlier thumbtune recorded.

    Its pictures tell: it is the present one, or the one that they were read from. A folder that is
    gone may have been moved: then the path means what it means here.

    Args:
        examples: rows of `Example`, recorded with it.
    """
    here = absolute_channel(source, channel)
    if source != "folder" or here == channel or PurePath(channel).parts[:1] == ("~",):
        return here
    file = _first_picture(workspace, examples)
    if file is None or file.is_relative_to(here):
        return here
    names = PurePath(os.path.normpath(channel)).parts
    names = tuple(name for name in names if name != "..")
    fitting = [folder for folder in file.parents if folder.parts[-len(names) :] == names]
    there = fitting[0] if names and fitting else file.parent
    return str(there) if there.is_dir() else here


def _first_picture(workspace: Workspace, examples: Table) -> Path | None:
    try:
        with workspace.place(examples.path).open("rb") as rows:
            place = json.loads(rows.readline())["thumbnails"]["file"]
    except (OSError, ValueError, KeyError, TypeError):  # gone, damaged, or of no file
        return None
    return Path(str(place))


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
