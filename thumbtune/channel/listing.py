"""What a source gives: the videos of a channel."""

from pydantic import BaseModel, ConfigDict


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
    views: dict[str, int] = {}
    """Id of a video → how often it was watched, where the source tells."""
    work: str = ""
    """What was asked of the source, in words."""
    notes: list[str] = []
    """What was read otherwise than as it stands, for the log."""
