"""Which sources of videos there are: the table that all who ask for one read.

Another package registers its own by an entry point of the group `thumbtune.sources`; see
CONTRIBUTING.md.
"""

from collections.abc import Collection
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from thumbtune.errors import SourceError

GROUP = "thumbtune.sources"
OURS = {
    "youtube": "thumbtune.channel.sources.youtube:YouTube",
    "folder": "thumbtune.channel.sources.folder:Folder",
    "hub": "thumbtune.channel.sources.hub:Hub",
    "sample": "thumbtune.channel.sources.sample:Sample",
}
"""Name → its class. It is loaded on first use: most runs have but one source."""


class Spelled(Protocol):
    """What parameters know of a source: how its channels are written."""

    channel_is: str
    """What a user gives as channel, such as "a path"; empty if there is but one channel."""
    brings: Collection[str]
    """What its videos may come with, for the method `given`: split, negatives."""

    def check_spelling(self, channel: str) -> None:
        """Raise a SourceError if that can be no channel of this source."""
        ...

    def absolute(self, channel: str) -> str:
        """The same channel, so written that it means the same wherever a program is started."""
        ...


def source_names() -> tuple[str, ...]:
    """All names that the parameter `source` may have, ours first."""
    others = sorted(entry.name for entry in entry_points(group=GROUP))
    return tuple(dict.fromkeys([*OURS, *others]))


@cache
def source_named(name: str) -> Any:
    """The source of a name: a `thumbtune.channel.source.Source`.

    Raises:
        SourceError: there is none, or the package that brings it cannot be loaded.
    """
    if place := OURS.get(name):
        module, _, kind = place.partition(":")
        return getattr(import_module(module), kind)()
    entry = _registered(name)
    try:
        return entry.load()()
    except Exception as error:  # whatever a stranger's code raises
        raise SourceError(
            f"source: {name!r} cannot be loaded from {entry.value} ({type(error).__name__}: "
            f"{error}). Mend or remove the package that brings it."
        ) from error


def usable_sources() -> dict[str, Spelled]:
    """Name → source, of all that can be loaded."""
    found: dict[str, Spelled] = {}
    for name in source_names():
        with suppress(SourceError):
            found[name] = source_named(name)
    return found


def _registered(name: str) -> EntryPoint:
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry
    raise SourceError(
        f"source: there is no source {name!r}. Give {', '.join(source_names())}, or install the "
        "package that brings it."
    )
