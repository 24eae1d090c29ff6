"""How often a channel's videos were watched: `registry/<channel>/views.json`.

Counts change by the hour, so they are no part of the list of videos, nor of any cache key.
"""

from contextlib import suppress
from functools import lru_cache

from pydantic import AwareDatetime, BaseModel, ConfigDict, NonNegativeInt, ValidationError

from thumbtune.channel.registry import Registry

FILE = "views.json"


class Views(BaseModel):
    """The counts of one reading."""

    model_config = ConfigDict(frozen=True)

    read_at: AwareDatetime
    counts: dict[str, NonNegativeInt]
    """Id of a video → how often it was watched until then; none of a video that hides it."""


def keep_views(registry: Registry, views: Views) -> None:
    """Keep a reading in the place of the last one."""
    registry.workspace.write(f"{registry.path}/{FILE}", views.model_dump_json().encode())


def views_of(registry: Registry) -> Views | None:
    """The last reading; None if there is none of use."""
    reading = read_views(registry)
    return views_in(reading) if reading else None


def read_views(registry: Registry) -> bytes:
    """The file of the last reading; empty if there is none of use."""
    with suppress(OSError, ValidationError):
        reading = registry.workspace.read(f"{registry.path}/{FILE}")
        views_in(reading)
        return reading
    return b""


@lru_cache(4)
def views_in(reading: bytes) -> Views:
    """What a file holds."""
    return Views.model_validate_json(reading)
