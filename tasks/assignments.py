"""Which split each video of a channel was given: it keeps it, whatever becomes of its title.

A hash places a video by the oldest one of its title, so an edited title, or a deleted video, would
move others from train to test. What was assigned is kept in the registry instead, for the shares
that it was assigned with: `registry/<channel>/splits/000003.json` adds what a run has assigned.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from tasks.parameters import SplitParameters
from tasks.registry import Registry
from tasks.splits import Assigned, SplitVideo
from tasks.thumbnails import Example
from tasks.workspace import Table

FOLDER = "splits"


class Assignment(BaseModel):
    """What one run has assigned that was not known before."""

    model_config = ConfigDict(frozen=True)

    number: int
    shares: tuple[float, float]
    """Of train and valid."""
    videos: str
    """Fingerprint of the list of videos; empty for what an earlier thumbtune has assigned."""
    assigned: list[Assigned]


def assigned_before(registry: Registry, parameters: SplitParameters, videos: Table) -> Table | None:
    """What was assigned before a list was split: `Assigned`; None if that is nothing.

    For the list that was split last it is what was known then, so its split is found again.
    """
    if parameters.method != "hash":
        return None
    known = _assignments(registry, parameters)
    if not known:
        known = _of_earlier_versions(registry, parameters)
    if known and known[-1].videos == videos.fingerprint:
        known = known[:-1]
    rows = _all(known)
    return registry.workspace.write_table("assigned", rows) if rows else None


def keep_assigned(
    registry: Registry, parameters: SplitParameters, videos: Table, splits: Table
) -> None:
    """Write down what a run has assigned: a table of `SplitVideo`."""
    if parameters.method != "hash":
        return
    known = set(_all(_assignments(registry, parameters)))
    rows = registry.workspace.read_table(splits, SplitVideo)
    new = [row for video in rows if (row := Assigned.of(video)) not in known]
    if new:
        _append(registry, parameters, videos.fingerprint, new)


def _all(assignments: Iterable[Assignment]) -> list[Assigned]:
    """The newest of each video, by id."""
    newest = {row.id: row for each in assignments for row in each.assigned}
    return [newest[video] for video in sorted(newest)]


def _shares(parameters: SplitParameters) -> tuple[float, float]:
    return parameters.train, parameters.valid


def _assignments(registry: Registry, parameters: SplitParameters) -> list[Assignment]:
    records = registry.records(FOLDER, Assignment)
    return [record for record in records if record.shares == _shares(parameters)]


def _of_earlier_versions(registry: Registry, parameters: SplitParameters) -> list[Assignment]:
    """What the newest version was trained with, where an earlier thumbtune has kept no more."""
    for version in reversed(registry.versions()):
        made_by = version.parameters.split
        alike = made_by.method == "hash" and _shares(made_by) == _shares(parameters)
        if alike and version.examples.is_whole(registry.workspace):
            rows = registry.workspace.read_table(version.examples, Example)
            return [_append(registry, parameters, "", [Assigned.of(row) for row in rows])]
    return []


def _append(
    registry: Registry, parameters: SplitParameters, videos: str, rows: list[Assigned]
) -> Assignment:
    return registry.append(
        FOLDER,
        lambda number: Assignment(
            number=number, shares=_shares(parameters), videos=videos, assigned=rows
        ),
    )
