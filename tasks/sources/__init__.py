"""Where videos come from. Each source lists a channel's videos as a `Listing`."""

from typing import TypeVar

import isodate
from pydantic import BaseModel, ConfigDict

from tasks.errors import UserError

T = TypeVar("T")


class Video(BaseModel):
    """One video of a channel."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    thumbnails: dict[str, str]
    """Quality → URL or absolute file path, best first: {"maxres": …, "high": …} or {"file": …}."""
    thumbnail_version: str = ""
    """Changes when a local picture changes under the same path; empty for URLs."""
    duration_seconds: float | None = None
    """None where the source does not tell; such a video passes the long-form filter."""
    published_at: str | None = None
    """ISO 8601, UTC."""
    split: str | None = None
    """Only from a hub dataset that came with splits: train, valid, test, or as it calls another."""
    title_neg: str | None = None
    """Only from a hub dataset that came with negatives."""


class Listing(BaseModel):
    """The videos of a channel that are of use, and how many were not, by reason."""

    videos: list[Video]
    dropped: dict[str, int] = {}
    shorts: list[str] = []
    """Ids of those that are too short, which they will always be."""
    to_come: list[str] = []
    """Ids of premieres and streams that are not over yet."""
    work: str = ""
    """What was asked of the source, in words."""
    notes: list[str] = []
    """What was read otherwise than as it stands, for the log."""


def parse_duration(text: str, unknown: T) -> float | T:
    """Seconds of an ISO 8601 duration such as PT4M30S; `unknown` if it is none."""
    try:
        seconds: float = isodate.parse_duration(text).total_seconds()
    except (isodate.ISO8601Error, AttributeError, ValueError, ArithmeticError, TypeError):
        return unknown
    return seconds


class SourceError(UserError):
    """The source cannot be read as asked; the message names the parameter and the mend."""
