"""A run that has nothing to do: known by the last one's record, before PyTorch and Prefect start.

Only the command line asks, and only where no Prefect server is set up that would list the run.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

import thumbtune.errors
from thumbtune import flows, tasks
from thumbtune.channel.registry import SWEEP, Registry
from thumbtune.channel.source import source_of
from thumbtune.channel.videos import VideoList
from thumbtune.data.thumbnails import ThumbnailBatch
from thumbtune.errors import UserError
from thumbtune.flows.own_server import has_server
from thumbtune.parameters import TrainParameters
from thumbtune.progress import ago
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace, fingerprint


class Finished(BaseModel):
    """What the last finished run of a channel rested on, and what it said at its end."""

    model_config = ConfigDict(frozen=True)

    code: str
    """Of the program that ran."""
    parameters: TrainParameters
    at: AwareDatetime
    listed_at: AwareDatetime
    stamp: str
    """Of the local files that the list was read from."""
    thumbnails: list[ThumbnailBatch]
    examples: Table
    model: ModelReference
    files: dict[str, str]
    """Path → fingerprint, of a file that is not there ""."""
    decisions: int
    """How many had been made on the channel's versions."""
    told: str = ""
    """What was printed at its end."""

    @classmethod
    def of(
        cls,
        registry: Registry,
        parameters: TrainParameters,
        videos: VideoList,
        thumbnails: Sequence[ThumbnailBatch],
        examples: Table,
        model: ModelReference,
        report: Mapping[str, str],
    ) -> Self:
        """What a run that ends now rests on.

        Args:
            report: path → fingerprint of its files.
        """
        sweep = f"{registry.path}/{SWEEP}"
        return cls(
            code=code(),
            parameters=parameters,
            at=datetime.now(UTC),
            listed_at=videos.listed_at,
            stamp=source_of(parameters.source).stamp(parameters.channel or ""),
            thumbnails=list(thumbnails),
            examples=examples,
            model=model,
            files={**report, sweep: _content(registry.workspace, sweep)},
            decisions=len(registry.decisions()),
        )

    def still_holds(self, registry: Registry, asked: TrainParameters) -> bool:
        """Whether a run as asked would find all as this one has left it."""
        workspace, age = registry.workspace, datetime.now(UTC) - self.listed_at
        return (
            (self.code, self.parameters) == (code(), asked)
            and timedelta() <= age < timedelta(hours=asked.videos.expiration_hours)
            and self.stamp == source_of(asked.source).stamp(asked.channel or "")
            and self.decisions == len(registry.decisions())
            and all(_content(workspace, path) == known for path, known in self.files.items())
            and self.examples.is_whole(workspace)
            and all(batch.is_whole(workspace) for batch in self.thumbnails)
            and self.model.is_intact(workspace)
        )


def keep(finished: Finished, told: str) -> None:
    """Write down what a run that has just finished rests on, in the place of an earlier one's.

    Args:
        told: what it has said.
    """
    registry = _registry(finished.parameters)
    content = finished.model_copy(update={"told": told}).model_dump_json()
    registry.workspace.write(_place(registry), content.encode())


def nothing_to_do(parameters: TrainParameters) -> str:
    """What the last run said at its end, if this one would find nothing to do; else ""."""
    publishes = parameters.publish.model_repo or parameters.publish.dataset_repo
    if parameters.refresh or publishes or has_server():
        return ""
    try:
        registry = _registry(parameters)
        finished = _read(registry)
        if not finished or not finished.still_holds(registry, parameters.located()):
            return ""
    except (UserError, OSError):  # the run itself tells what is wrong
        return ""
    since = ago(datetime.now(UTC) - finished.at)
    return f"Nothing to do: all is as the run of {since} has left it.\n{finished.told}"


def _registry(parameters: TrainParameters) -> Registry:
    located = parameters.located()
    return Registry(Workspace.find(parameters.workspace), located.source, located.channel)


def _read(registry: Registry) -> Finished | None:
    """The record; None if there is none that is of use."""
    try:
        return Finished.model_validate_json(registry.workspace.read(_place(registry)))
    except (OSError, ValueError):
        return None


def _place(registry: Registry) -> str:
    return f"{registry.path}/finished.json"


def _content(workspace: Workspace, path: str) -> str:
    try:
        return fingerprint(workspace.read(path))
    except OSError:
        return ""


def code() -> str:
    """Changes with each file of this program."""
    folders = {Path(part.__file__ or "").parent for part in (thumbtune.errors, flows, tasks)}
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return fingerprint(*(f"{file} {file.stat().st_mtime_ns}" for file in files))
