"""Which split each video of a channel was given: it keeps it, whatever becomes of its title.

A hash places a video by the oldest one of its title, so an edited title, or a deleted video, would
move others from train to test. What was assigned is kept in the registry instead, for the shares
that it was assigned with: `registry/<channel>/splits/000003.json` adds what a run has assigned.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from thumbtune.channel.registry import Registry
from thumbtune.data.near_duplicates import Look
from thumbtune.data.splits import Assigned, SplitVideo, linking
from thumbtune.data.thumbnails import Example
from thumbtune.parameters import SplitParameters
from thumbtune.store.workspace import Table

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


class Before(NamedTuple):
    """What was assigned before a list was split."""

    table: Table | None = None
    """Rows of `Assigned`; None if there are none."""
    last: int = 0
    """Number of the last record that is known."""


def assigned_before(registry: Registry, parameters: SplitParameters, videos: Table) -> Before:
    """What was assigned before a list was split.

    For the list that was split last it is what was known then, so its split is found again.
    """
    if parameters.method != "hash":
        return Before()
    records = registry.records(FOLDER, Assignment)
    last = records[-1].number if records else 0
    known = _alike(records, parameters)
    if not known and (earlier := _of_earlier_versions(registry, parameters)):
        kept = _append(registry, last, parameters, "", earlier)
        if kept is None:  # another run was faster
            return assigned_before(registry, parameters, videos)
        known, last = [kept], kept.number
    if known and known[-1].videos == videos.fingerprint:
        known = known[:-1]
    rows = _all(known)
    return Before(registry.workspace.write_table("assigned", rows) if rows else None, last)


def keep_assigned(
    registry: Registry,
    parameters: SplitParameters,
    videos: Table,
    splits: Table,
    last: int,
    looks: Table,
) -> bool:
    """Write down what a run has assigned: a table of `SplitVideo`.

    Args:
        last: number of the last record that was known when the list was split.
        looks: rows of `Look`, of which each video's picture is kept.

    Returns:
        False if another run, such as a sweep, has assigned videos since: what was written first
        holds, so the list is to be split again by that.
    """
    if parameters.method != "hash":
        return True
    records = registry.records(FOLDER, Assignment)
    if records and records[-1].number > last:
        return False
    known = {row.id: row for row in _all(_alike(records, parameters))}
    seen = registry.workspace.read_table(looks, Look)
    pictures = {look.id: look.picture for look in seen}
    split = registry.workspace.read_table(splits, SplitVideo)
    alike = {video.id: video.look for video in split if video.look}
    links = linking(split, list(known.values()), alike, pictures)  # they may be left out one day
    rows = [
        Assigned.of(video, pictures.get(video.id, "")) for video in split if video.id not in links
    ]
    new = [row for row in rows if row.id not in known or known[row.id].then(row) != known[row.id]]
    return not new or _append(registry, last, parameters, videos.fingerprint, new) is not None


def _all(assignments: Iterable[Assignment]) -> list[Assigned]:
    """Of each video the split that it was given first, its newest title and picture; by id."""
    rows: dict[str, Assigned] = {}
    for row in (row for each in assignments for row in each.assigned):
        rows[row.id] = rows.get(row.id, row).then(row)
    return [rows[video] for video in sorted(rows)]


def _shares(parameters: SplitParameters) -> tuple[float, float]:
    return parameters.train, parameters.valid


def _alike(records: Iterable[Assignment], parameters: SplitParameters) -> list[Assignment]:
    """Those that were made for the same shares."""
    return [record for record in records if record.shares == _shares(parameters)]


def _of_earlier_versions(registry: Registry, parameters: SplitParameters) -> list[Assigned]:
    """What the channel's versions were trained with, where an earlier thumbtune has kept no more.

    Of a video whose split has changed it is the newest.
    """
    rows: dict[str, Assigned] = {}
    for version in registry.versions_of_channel():
        made_by = version.parameters.split
        alike = made_by.method == "hash" and _shares(made_by) == _shares(parameters)
        if alike and version.examples.is_whole(registry.workspace):
            examples = registry.workspace.read_table(version.examples, Example)
            rows |= {row.id: Assigned.of(row, row.image) for row in examples}
    return list(rows.values())


def _append(
    registry: Registry, last: int, parameters: SplitParameters, videos: str, rows: list[Assigned]
) -> Assignment | None:
    return registry.append_after(
        FOLDER,
        last,
        lambda number: Assignment(
            number=number, shares=_shares(parameters), videos=videos, assigned=rows
        ),
    )
