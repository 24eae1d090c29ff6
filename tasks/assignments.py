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
    known = _assignments(registry, parameters) or _of_earlier_versions(registry, parameters)
    rows = _all(_without(known, videos))
    return registry.workspace.write_table("assigned", rows) if rows else None


def keep_assigned(
    registry: Registry, parameters: SplitParameters, videos: Table, splits: Table
) -> bool:
    """Write down what a run has assigned: a table of `SplitVideo`.

    Returns:
        False if another run has assigned something meanwhile: split again, by what is known now.
    """
    if parameters.method != "hash":
        return True
    records = registry.records(FOLDER, Assignment)
    known = [record for record in records if record.shares == _shares(parameters)]
    given = {row.id: row.split for row in _all(_without(known, videos))}
    rows = [Assigned.of(row) for row in registry.workspace.read_table(splits, SplitVideo)]
    if any(given.get(row.id, row.split) != row.split for row in rows):
        return False
    seen = set(_all(known))
    if not (new := [row for row in rows if row not in seen]):
        return True
    last = records[-1].number if records else 0
    made = Assignment(
        number=last + 1, shares=_shares(parameters), videos=videos.fingerprint, assigned=new
    )
    return registry.append_after(FOLDER, last, made)


def _without(known: list[Assignment], videos: Table) -> list[Assignment]:
    """What was known when a list was split, if it was the last one."""
    return known[:-1] if known and known[-1].videos == videos.fingerprint else known


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
    """What the versions were trained with, where an earlier thumbtune has kept no more.

    Where they differ the newest counts.
    """
    rows: dict[str, Assigned] = {}
    for version in registry.versions():
        made_by = version.parameters.split
        alike = made_by.method == "hash" and _shares(made_by) == _shares(parameters)
        if alike and version.examples.is_whole(registry.workspace):
            examples = registry.workspace.read_table(version.examples, Example)
            rows |= {row.id: Assigned.of(row) for row in examples}
    if not rows:
        return []
    assigned, shares = list(rows.values()), _shares(parameters)

    def numbered(number: int) -> Assignment:
        return Assignment(number=number, shares=shares, videos="", assigned=assigned)

    return [registry.append(FOLDER, numbered)]
