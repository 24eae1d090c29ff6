"""A list that was begun and not ended: the next run goes on with its answers."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, BaseModel

from thumbtune.channel.source import Params
from thumbtune.channel.sources.youtube.api import QUOTA_UNITS, Ask, Origin, origin_of
from thumbtune.store.workspace import Workspace, fingerprint

RESUMABLE = timedelta(hours=48)  # a list that was begun longer ago is begun again


PAGED = {"playlistItems", "search"}


class Unfinished(BaseModel):
    """What is known of a list that was begun and not ended."""

    begun: AwareDatetime
    """Answers that were stored since then need not be asked for again."""
    has_pages: bool = False
    """Whether all its pages were read in one go; else they are read anew."""


def open_listing(workspace: Workspace, channel: str, listing: str) -> Unfinished:
    """Begin a list of a channel, or go on with one that was not ended."""
    if left := _left(workspace, channel, listing):
        return left
    begun = Unfinished(begun=datetime.now(UTC))
    workspace.write(_unfinished(channel, listing), begun.model_dump_json().encode())
    return begun


def listing_began(workspace: Workspace, channel: str, listing: str) -> datetime:
    """When a list that is made now was begun: it may go on with an unfinished one."""
    left = _left(workspace, channel, listing)
    return left.begun if left else datetime.now(UTC)


def _left(workspace: Workspace, channel: str, listing: str) -> Unfinished | None:
    """A list that was begun not long ago, and not ended."""
    now = datetime.now(UTC)
    try:
        left = Unfinished.model_validate_json(workspace.read(_unfinished(channel, listing)))
    except (OSError, ValueError):
        return None
    return left if now - RESUMABLE < left.begun <= now else None


def close_listing(workspace: Workspace, channel: str, listing: str) -> None:
    """Whoever asked for the list has kept it; the next one is asked for anew."""
    workspace.remove(_unfinished(channel, listing))


def _unfinished(channel: str, listing: str) -> str:
    return f"youtube-unfinished/{fingerprint(channel, listing)[:32]}.json"


class ListCalls:
    """The calls that make one list, which goes on from what an unfinished one has left."""

    def __init__(self, workspace: Workspace, channel: str, listing: str, ask: Ask) -> None:
        self.workspace = workspace
        self.file = _unfinished(channel, listing)
        self.ask = ask
        self.left = open_listing(workspace, channel, listing)
        self.begun_anew = 0
        self.units: Counter[str] = Counter()
        self.answers: Counter[Origin] = Counter()

    def __call__(self, endpoint: str, params: Params) -> dict[str, Any]:
        """Make one call, unless its answer is kept and still fits to the others."""
        keeps = self.left.has_pages or endpoint not in PAGED
        answer = self.ask(endpoint, params, self.left.begun if keeps else None)
        origin = origin_of(answer)
        self.answers[origin] += 1
        self.units[endpoint] += 0 if origin == "kept" else QUOTA_UNITS[endpoint]
        return answer

    def mark_pages(self, whole: bool) -> None:
        """Write down whether all pages are read, before the next call is made."""
        self.begun_anew += not whole
        if whole != self.left.has_pages:
            self.left = self.left.model_copy(update={"has_pages": whole})
            self.workspace.write(self.file, self.left.model_dump_json().encode())

    def work(self) -> str:
        """What was asked for, in words; each call costs a unit, also for what is unchanged.

        https://developers.google.com/youtube/v3/determine_quota_cost
        """
        fetched, unchanged = self.answers["fetched"], self.answers["unchanged"]
        work = f"{fetched + unchanged} units of quota: {fetched} answers fetched"
        work += f", {unchanged} unchanged"
        if self.answers["kept"]:
            work += f", {self.answers['kept']} kept from a list begun before"
        if self.begun_anew:
            work += f"; the list was begun anew {self.begun_anew} times"
        return work
