"""What a source of videos has to tell. How to add one: CONTRIBUTING.md."""

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from thumbtune.channel.listing import Listing
from thumbtune.names.sources import source_named
from thumbtune.parameters import TrainParameters, VideosParameters
from thumbtune.store.workspace import Workspace, fingerprint

LONGEST = 40  # characters of a channel's name in the name of a folder

Params = dict[str, str | int]
"""Of a call of an API."""

Request = Callable[[Workspace, str, Params, int, datetime | None], dict[str, Any]]
"""Makes one call: (workspace, endpoint, parameters, daily quota, since when a stored answer will
do) → the answer. Prefect's task for it tries again when it fails."""

ReadSecret = Callable[[str], str | None]
"""Gives the value of a secret, or None if it cannot be known yet; raises if there is none."""

Tell = Callable[[str], None]
"""Takes a sentence that a user should know of."""


def say_nothing(sentence: str) -> None:
    """Where nobody listens."""


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


class Source(Protocol):
    """Where videos come from.

    A class that derives from this one needs `name` and `list_videos`. The rest stands for a source
    whose channels have one spelling, that wants no key, and keeps no files of this machine.
    """

    name: ClassVar[str]
    """As the parameter `source` has it."""
    channel_is: ClassVar[str] = "its name"
    """What a user gives as channel; empty if there is but one channel."""
    brings: ClassVar[Collection[str]] = ()
    """What its videos may come with, for the method `given`: split, negatives."""
    empty: ClassVar[str] = "nothing is listed. Choose another channel."
    """What to say where no video was found, with the mend."""
    mends: ClassVar[Mapping[str, str]] = {}
    """Beginning of a reason for which videos are left out → what mends that."""
    otherwise: ClassVar[str] = "Choose another channel."
    """What to do where no reason has a mend."""

    @abstractmethod
    def list_videos(
        self, workspace: Workspace, channel: str, parameters: VideosParameters, request: Request
    ) -> Listing:
        """List a channel's videos, shorts too.

        Args:
            channel: as `listed_as` gives it.
            request: makes a call of YouTube's API.

        Raises:
            SourceError: it cannot be read; the message names the parameter and the mend.
        """
        ...

    def check_spelling(self, channel: str) -> None:
        """Raise a SourceError if that can be no channel of this source."""

    def absolute(self, channel: str) -> str:
        """The same channel, so written that it means the same wherever a program is started."""
        return channel

    def canonical(self, channel: str) -> str:
        """Equal for spellings that mean the same, so far as the spelling tells."""
        return channel

    def short_name(self, channel: str) -> str:
        """How people call a channel."""
        return last_part(channel or self.name)

    def public_name(self, channel: str) -> str:
        """How others may know it: never by a path of this machine."""
        return self.short_name(channel)

    def address_of(self, video_id: str) -> str:
        """Where a video can be watched; empty where it cannot."""
        return ""

    def identity(self, workspace: Workspace, channel: str) -> Identity:
        """Which channel is meant, by what is known on this machine and in the workspace."""
        own = self.channel_id(channel)
        return Identity(source=self.name, id=own, called=self.short_name(own))

    def channel_id(self, channel: str) -> str:
        """What a channel is, whatever way leads there."""
        return channel.strip().strip("/").casefold()

    def is_spelled_alike(self, channel: str, other: str) -> bool:
        """Whether two channels are one by their spelling alone."""
        return self.channel_id(channel) == self.channel_id(other)

    def check(self, parameters: TrainParameters, read: ReadSecret, tell: Tell) -> None:
        """Raise a UserError for what can be known before anything is fetched.

        Args:
            read: how secrets are read.
            tell: is given a sentence for each thing that will be left out.
        """

    def look_up(
        self, workspace: Workspace, parameters: TrainParameters, request: Request, at_any_age: bool
    ) -> None:
        """Ask which channel is meant, if that is not known, before anything is kept under it.

        Args:
            at_any_age: what is kept will do, however old.
        """

    def listed_as(self, workspace: Workspace, channel: str) -> str:
        """What a channel is listed by, so that all spellings share one list, and no two do."""
        return self.absolute(channel)

    def list_began(
        self, workspace: Workspace, channel: str, parameters: VideosParameters
    ) -> datetime:
        """The time of a list that is made now; of one that a killed run has begun, when it did."""
        return datetime.now(UTC)

    def end_list(self, workspace: Workspace, channel: str, parameters: VideosParameters) -> None:
        """The list is kept: the next one is asked for anew."""

    def stamp(self, channel: str) -> str:
        """Changes when a file of this machine changes that the list was read from."""
        return ""

    def newest(self, identity: Identity, tell: Tell) -> list[str]:
        """Ids of the newest videos by a feed that costs nothing; none if there is no such feed."""
        return []


def source_of(name: str) -> Source:
    """The source of a name.

    Raises:
        SourceError: there is none.
    """
    source: Source = source_named(name)
    return source


def short_name(source: str, channel: str | None) -> str:
    """How people call a channel: @handle, or a folder without the way there."""
    return source_of(source).short_name(channel or "")


def last_part(name: str) -> str:
    """A path without the way there."""
    return name.rstrip("/").rpartition("/")[2]


def registry_name(source: str, channel: str | None) -> str:
    """Name of a folder for a channel by its spelling alone, equal for equal spellings."""
    spelling = source_of(source).canonical(channel or "")
    return f"{_readable(short_name(source, spelling))}-{fingerprint(source, spelling)[:8]}"


def _readable(name: str) -> str:
    """The letters of a name, those of any script, that no file system objects to."""
    kept = (c if unicodedata.category(c)[0] in "LMN" or c in "_.-" else "-" for c in name)
    return re.sub("-+", "-", "".join(kept))[:LONGEST].strip("-.") or "channel"
