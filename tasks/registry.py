"""Step: keep every version of a channel's model, and which of them is the champion.

Nothing here is ever changed, only added, each file whole and under a number of its own:
`registry/<channel>/versions/000007.json` tells where a model came from and how it measured,
`registry/<channel>/decisions/000009.json` what became of it and who is the champion since, and why.
So history is kept, and two runs at once do not overwrite it.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import PurePath
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.commands import (
    DEFAULT_WORKSPACE,
    channel_options,
    train_command,
    workspace_options,
)
from tasks.models import ModelReference
from tasks.parameters import TrainParameters
from tasks.workspace import Table, Workspace, fingerprint

Record = TypeVar("Record", bound=BaseModel)


class Version(BaseModel):
    """One trained model of a channel."""

    model_config = ConfigDict(frozen=True)

    number: int
    created: datetime
    model: ModelReference
    untouched: ModelReference
    """What it was trained from."""
    parameters: TrainParameters
    examples: Table
    learned_from: list[str]
    """Ids of the videos of its train and valid splits."""
    seen: list[str]
    """Ids of all videos that the run knew, test included."""
    metrics: dict[str, float]
    """On the test split of its run, by short names such as `Recall@1`."""


class Decision(BaseModel):
    """What became of a version, and who is the champion since."""

    model_config = ConfigDict(frozen=True)

    number: int
    version: int
    champion: int | None
    why: str
    at: datetime


class DamagedRecordError(ValueError):
    """A record cannot be read; the message names the file and the mend."""


class UnknownVersionError(ValueError):
    """There is no such version of this channel."""


class UnknownChannelError(ValueError):
    """There is no model of the channel, or more than one channel could be meant."""


def registry_name(source: str, channel: str | None) -> str:
    """Name of a channel's folder: readable, and different for different channels."""
    readable = re.sub(r"[^\w.-]+", "-", short_name(source, channel))
    return f"{readable.strip('-.') or 'channel'}-{fingerprint(source, channel or '')[:8]}"


def short_name(source: str, channel: str | None) -> str:
    """How people call a channel: @handle, or a folder without the way there."""
    return (channel or source).rstrip("/").rpartition("/")[2]


class Registry:
    """The versions of one channel, and what was decided on them."""

    def __init__(self, workspace: Workspace, source: str, channel: str | None) -> None:
        self.workspace = workspace
        self.source = source
        self.channel = channel
        self.name = registry_name(source, channel)
        self.path = f"registry/{self.name}"
        """Relative to the workspace."""

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        return _read_all(self.workspace, f"{self.path}/versions", Version)

    def version(self, number: int) -> Version:
        """One version.

        Raises:
            UnknownVersionError: there is none of this number; it lists those that there are.
        """
        versions = {version.number: version for version in self.versions()}
        if number not in versions:
            known = ", ".join(map(str, versions)) or "none"
            raise UnknownVersionError(f"{self.name} has no version {number}; it has: {known}.")
        return versions[number]

    def decisions(self) -> list[Decision]:
        """The history, the oldest first."""
        return _read_all(self.workspace, f"{self.path}/decisions", Decision)

    def champion(self) -> Version | None:
        """The version in use, if any was ever promoted."""
        decisions = self.decisions()
        number = decisions[-1].champion if decisions else None
        return self.version(number) if number else None

    def add(
        self,
        model: ModelReference,
        untouched: ModelReference,
        parameters: TrainParameters,
        examples: Table,
        learned_from: list[str],
        seen: list[str],
        metrics: dict[str, float],
    ) -> Version:
        """Keep a trained model as the next version; the same model again is the same version."""
        for version in self.versions():
            if (version.model.fingerprint, version.examples) == (model.fingerprint, examples):
                return version
        return _append(
            self.workspace,
            f"{self.path}/versions",
            lambda number: Version(
                number=number,
                created=datetime.now(UTC),
                model=model,
                untouched=untouched,
                parameters=parameters,
                examples=examples,
                learned_from=learned_from,
                seen=seen,
                metrics=metrics,
            ),
        )

    def decide(self, version: int, champion: int | None, why: str) -> Decision:
        """Write down what became of a version, and who is the champion now."""
        return _append(
            self.workspace,
            f"{self.path}/decisions",
            lambda number: Decision(
                number=number, version=version, champion=champion, why=why, at=datetime.now(UTC)
            ),
        )

    def roll_back(self, version: int, why: str) -> Decision:
        """Make a version the champion by hand.

        Raises:
            UnknownVersionError: there is none of this number, or its weights were deleted.
        """
        if not self.version(version).model.is_there(self.workspace):
            raise UnknownVersionError(
                f"The weights of version {version} of {self.name} are no longer there "
                "(promotion.keep_models tells how many are kept). Choose a later version."
            )
        return self.decide(version, version, why)

    def remove_old_models(self, keep: int) -> list[int]:
        """Delete the weights of old versions; their records stay.

        The newest versions and the last champions keep theirs, `keep` of each.

        Returns:
            The versions whose weights were deleted now.
        """
        versions = self.versions()
        decided = [decision.champion for decision in reversed(self.decisions())]
        champions = list(dict.fromkeys(number for number in decided if number))
        kept = {version.number for version in versions[-keep:]} | set(champions[:keep])
        in_use = {v.model.kept_at(self.workspace) for v in versions if v.number in kept}
        removed = []
        for version in versions:
            path = version.model.kept_at(self.workspace)
            if version.number in kept or path is None or path in in_use:
                continue
            # a record that somebody changed deletes nothing else
            if self._is_own(path) and self.workspace.has(path):
                self.workspace.remove(path)
                removed.append(version.number)
        return removed

    def _is_own(self, path: str) -> bool:
        models = (self.workspace.root / "models").resolve()
        return models in (self.workspace.root / path).resolve().parents

    @contextmanager
    def one_run_at_a_time(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Wait until no other run of this machine trains this channel.

        The lock is the operating system's, so it ends with its process, however that dies.

        Args:
            tell: called if there is a wait.
        """
        lock = self.workspace.lock(f"{self.path}/training.lock")
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            tell(f"Another run trains {self.name}; waiting until it is done")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def registries(workspace: Workspace) -> list[Registry]:
    """The channels that have a version, by name."""
    found = []
    for name in workspace.names("registry"):
        for version in _read_all(workspace, f"registry/{name}/versions", Version, first=1):
            found.append(Registry(workspace, version.parameters.source, version.parameters.channel))
    return found


def find_registry(workspace: Workspace, source: str | None, channel: str | None) -> Registry:
    """The registry of a channel that has a model; the only one if nothing is given.

    The bundled sample is meant only if it is named or nothing else is there.

    Raises:
        UnknownChannelError: none or several fit; it lists those that there are, and tells where
            else there is one, or how to train it.
    """
    known = registries(workspace)
    fitting = _fitting(known, source, channel)
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(shlex.join(channel_options(r.source, r.channel)) for r in known)
    asked = channel or source
    problem = (
        "more than one channel has models" if fitting else f"no model of {asked or 'any channel'}"
    )
    mend = "" if fitting else _mend(workspace, source, channel)
    raise UnknownChannelError(
        f"{problem} in {workspace}.{mend} Give workspace, source and channel as in the training; "
        f"there are models of: {there or 'none'}."
    )


def _fitting(known: list[Registry], source: str | None, channel: str | None) -> list[Registry]:
    """Those that could be meant."""
    fitting = [
        registry
        for registry in known
        if source in (None, registry.source) and channel in (None, registry.channel)
    ]
    if source is None and channel is None:
        return [registry for registry in fitting if registry.source != "sample"] or fitting
    return fitting


def _mend(workspace: Workspace, source: str | None, channel: str | None) -> str:
    """What to do where no model is: look elsewhere, or train."""
    for place in ("workspace", DEFAULT_WORKSPACE):  # `make train` once wrote to ./workspace
        with suppress(ValueError, OSError):
            elsewhere = Workspace.find(place)
            if elsewhere.location != workspace.location and _fitting(
                registries(elsewhere), source, channel
            ):
                way = f"add `--workspace {place}`"
                way = "leave out `--workspace`" if place == DEFAULT_WORKSPACE else way
                return f" There is one in {elsewhere}: {way}."
    command = train_command(*_how(source, channel), *workspace_options(workspace.location))
    return f" Train one: `{command}`."


def _how(source: str | None, channel: str | None) -> list[str]:
    """The options of a training of the channel that was asked for."""
    if source == "sample":
        return ["--source", "sample", "--model", "sample", "--negatives.text_model", "sample"]
    return channel_options(source, channel or ("@handle" if source is None else "…"))


def _read_all(
    workspace: Workspace, folder: str, record: type[Record], first: int | None = None
) -> list[Record]:
    """The records of a folder, or its first ones."""
    paths = [f"{folder}/{name}" for name in _records(workspace, folder)[:first]]
    workspace.places(paths)
    return [_read(workspace, path, record) for path in paths]


def _records(workspace: Workspace, folder: str) -> list[str]:
    """The numbered files, in their order; a copy that somebody left beside them is none."""
    return [name for name in workspace.names(folder) if re.fullmatch(r"[0-9]+\.json", name)]


def _read(workspace: Workspace, path: str, record: type[Record], again: bool = True) -> Record:
    try:
        return record.model_validate_json(workspace.place(path).read_bytes())
    except ValidationError as error:
        if again and workspace.renew(path):  # only the copy on this machine may be damaged
            return _read(workspace, path, record, again=False)
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise DamagedRecordError(
            f"The record {workspace}/{path} is damaged ({f'{field}: ' if field else ''}"
            f"{problem['msg']}). Restore it from a backup; if there is none, delete it, and its "
            "history is lost."
        ) from None


def _append(workspace: Workspace, folder: str, make: Callable[[int], Record]) -> Record:
    """Write a record under the next free number; of two writers at once each gets its own."""
    names = _records(workspace, folder)
    for number in count(int(PurePath(names[-1]).stem) + 1 if names else 1):
        record = make(number)
        data = record.model_dump_json(indent=1).encode()
        if workspace.create(f"{folder}/{number:06}.json", data):
            return record
    raise AssertionError("unreachable")
