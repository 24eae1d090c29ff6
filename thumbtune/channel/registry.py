"""Keep every version of a channel's model, and which of them is the champion.

Nothing here is ever changed, only added, each file whole and under a number of its own:
`registry/<channel>/versions/000007.json` tells where a model came from and how it measured,
`registry/<channel>/decisions/000009.json` what became of it and who is the champion since, and why.
So history is kept, and two runs at once do not overwrite it. `registry/<channel>/channel.json`
tells whose registry it is, in whatever spelling the channel is named: see
`thumbtune.channel.identity`.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import PurePath
from typing import TypeVar

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from thumbtune.channel.identity import identify_here, recorded_channel
from thumbtune.channel.source import Identity
from thumbtune.commands import DEFAULT_WORKSPACE, channel_options, train_command, workspace_options
from thumbtune.errors import UserError
from thumbtune.parameters import TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace, fingerprint

Record = TypeVar("Record", bound=BaseModel)
SWEEP = "sweep.json"
"""What a channel's last sweep has chosen, beside its records."""


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
    """Ids of the videos that it was trained or chosen by: of train and valid, or all."""
    seen: list[str]
    """Ids of all videos that the run listed, also of those without a thumbnail of use."""
    metrics: dict[str, float]
    """By short names such as `Recall@1`: on the test split of its run, or on all videos, each by
    a model that has not learned from it."""
    intervals: dict[str, tuple[float, float]] = {}
    """Metric → 95 % interval; none in what an earlier thumbtune wrote."""
    gallery: float | None = None
    """Titles that a thumbnail was ranked among there, on average; None in what an earlier thumbtune
    wrote."""
    recipe: str = ""
    """What was done to the untouched model."""
    answers: Table | None = None
    """Of a cross-fit the rows of `Prediction`: what models that have not learned from a video
    answered to it."""


class Decision(BaseModel):
    """What became of a version, and who is the champion since."""

    model_config = ConfigDict(frozen=True)

    number: int
    version: int
    champion: int | None
    why: str
    at: datetime


class Seen(BaseModel):
    """What the last finished run listed that had new videos, and when."""

    videos: list[str] = []
    """Ids of all videos."""
    at: AwareDatetime | None = None
    """None in what an earlier thumbtune wrote."""


class DamagedRecordError(UserError, ValueError):
    """A record cannot be read; the message names the file and the mend."""


class MissingSourceError(DamagedRecordError):
    """A record is of a source that another package brings, which is not installed."""


class UnknownVersionError(UserError, ValueError):
    """There is no such version of this channel."""


class UnknownChannelError(UserError, ValueError):
    """There is no model of the channel, or more than one channel could be meant."""


class Registry:
    """The versions of one channel, and what was decided on them."""

    def __init__(
        self,
        workspace: Workspace,
        source: str,
        channel: str | None,
        identity: Identity | None = None,
    ) -> None:
        """The registry of a channel in any spelling.

        Args:
            identity: which channel that is, if it is known already.
        """
        self.workspace = workspace
        self.source = source
        self.channel = channel
        self._identity = identity
        self._name: str | None = None

    @property
    def identity(self) -> Identity:
        """Which channel this is, as far as is known by now."""
        return self._identity or identify_here(self.workspace, self.source, self.channel)

    @property
    def name(self) -> str:
        """Of its folder, which stays the same once the channel is known."""
        if self._name:
            return self._name
        identity = self.identity
        name = self._claimed(identity) or next(
            iter(_folders_of(self.workspace, identity)), identity.folder
        )
        if identity.id is not None:
            self._name = name
        return name

    @property
    def path(self) -> str:
        """Relative to the workspace."""
        return f"registry/{self.name}"

    def is_of(self, channel: str) -> bool:
        """Whether a channel, in any spelling, is this one."""
        return self.identity.is_same(identify_here(self.workspace, self.source, channel))

    def claim(self) -> list[str]:
        """Write down whose registry this is, so that it is found by any spelling and at once.

        Returns:
            Other registries of the channel, which are not used.
        """
        identity = self.identity
        if identity.id is None or self._claimed(identity):
            return []
        names = _folders_of(self.workspace, identity) or [identity.folder]
        self._name, *others = names
        whose = identity.model_dump_json(indent=1).encode()
        self.workspace.create(f"{self.path}/channel.json", whose)
        self.workspace.write(_claim(identity), self._name.encode())
        return others

    def _claimed(self, identity: Identity) -> str | None:
        """The name that was claimed for a channel, if its folder is still there."""
        if identity.id is None:
            return None
        try:
            name = self.workspace.read(_claim(identity)).decode()
        except (OSError, ValueError):
            return None
        return name if self.workspace.has(f"registry/{name}/channel.json") else None

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

    def records(self, folder: str, record: type[Record]) -> list[Record]:
        """What else is kept of the channel under numbers, in its order."""
        return _read_all(self.workspace, f"{self.path}/{folder}", record)

    def append_after(self, folder: str, last: int, make: Callable[[int], Record]) -> Record | None:
        """Keep one more of it, which is made for its number: None if somebody else was faster.

        Args:
            last: number of the last one that is known, 0 for none.
        """
        made = make(last + 1)
        path = f"{self.path}/{folder}/{last + 1:06}.json"
        return made if self.workspace.create(path, _as_bytes(made)) else None

    def versions_of_channel(self) -> list[Version]:
        """Those of all registries of the channel, the oldest first.

        There are several if an earlier thumbtune, which went by the spelling, made them.
        """
        found = self.versions()
        for name in set(_folders_of(self.workspace, self.identity)) - {self.name}:
            with suppress(DamagedRecordError):  # of a registry that is not in use
                found += _read_all(self.workspace, f"registry/{name}/versions", Version)
        return sorted(found, key=lambda version: version.created)

    def decision_on(self, version: int) -> Decision | None:
        """The first decision on a version, if there is any."""
        return next((made for made in self.decisions() if made.version == version), None)

    def reasons(self) -> dict[int, str]:
        """Version → why the last decision on it was made."""
        return {made.version: made.why for made in self.decisions()}

    def champion(self) -> Version | None:
        """The version in use, if any was ever promoted and its record is still there."""
        for last in _records(self.workspace, f"{self.path}/decisions")[-1:]:
            decision = _read(self.workspace, f"{self.path}/decisions/{last}", Decision)
            record = f"{self.path}/versions/{decision.champion or 0:06}.json"
            if self.workspace.has(record):
                return _read(self.workspace, record, Version)
        return None

    def newest(self) -> Version | None:
        """The newest version that was decided on; one that a killed run left is not done."""
        decided = {decision.version for decision in self.decisions()}
        return next((v for v in reversed(self.versions()) if v.number in decided), None)

    def note_seen(self, videos: list[str]) -> None:
        """Write down which videos a run has listed, and when, once it has decided on its model.

        Nothing is written if the newest version knows them. It may be an older run's, since equal
        weights are no new version, or of an earlier thumbtune, which left some out.
        """
        if not self.seen(self.newest()).issuperset(videos):
            noted = Seen(videos=videos, at=datetime.now(UTC))
            self.workspace.write(f"{self.path}/seen.json", noted.model_dump_json().encode())

    def seen(self, newest: Version | None) -> set[str]:
        """Ids of the videos that the newest version, or the last finished run, has listed."""
        return {*newest.seen, *self._last_run().videos} if newest else set()

    def trained_at(self, newest: Version | None) -> datetime | None:
        """When a training last took new videos, also if it came to the weights of a version."""
        if newest is None:
            return None
        return max(newest.created, self._last_run().at or newest.created)

    def _last_run(self) -> Seen:
        try:
            return Seen.model_validate_json(self.workspace.read(f"{self.path}/seen.json"))
        except (OSError, ValueError):  # there is none, or it is damaged
            return Seen()

    def add(
        self,
        model: ModelReference,
        untouched: ModelReference,
        parameters: TrainParameters,
        examples: Table,
        learned_from: list[str],
        seen: list[str],
        metrics: dict[str, float],
        gallery: float | None = None,
        recipe: str = "",
        answers: Table | None = None,
        intervals: dict[str, tuple[float, float]] | None = None,
    ) -> Version:
        """Keep a trained model as the next version; the same weights again are the same version.

        So they are, whatever they were measured on: what was decided on them by hand stands.
        """
        self.claim()
        for version in self.versions():
            if version.model.fingerprint == model.fingerprint:
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
                intervals=intervals or {},
                gallery=gallery,
                recipe=recipe,
                answers=answers,
            ),
        )

    def decide(self, version: int, champion: int | None, why: str) -> Decision:
        """Write down what became of a version, and who is the champion now."""
        made = _decision(version, champion, why)
        return _append(self.workspace, f"{self.path}/decisions", made)

    def decide_after(
        self, last: int, version: int, champion: int | None, why: str
    ) -> Decision | None:
        """The same, if nothing was decided since: None if somebody else was faster.

        Args:
            last: number of the last decision that is known, 0 for none.
        """
        return self.append_after("decisions", last, _decision(version, champion, why))

    def roll_back(self, version: int, why: str) -> Decision:
        """Make a version the champion by hand.

        Raises:
            UnknownVersionError: there is none of this number, or its weights were deleted.
            ModelNotFoundError: its weights are damaged.
        """
        model = self.version(version).model
        with _models_lock(self.workspace):
            if not model.is_there(self.workspace):
                raise UnknownVersionError(
                    f"The weights of version {version} of {self.name} are no longer there "
                    "(promotion.keep_models tells how many are kept). Choose a later version."
                )
            model.check(self.workspace)
            return self.decide(version, version, why)

    def remove_old_models(self, keep: int) -> list[int]:
        """Delete the weights of old versions; their records stay.

        The newest versions and the last champions keep theirs, `keep` of each, and so do those that
        another channel's registry keeps.

        Returns:
            The versions whose weights were deleted now; none while another channel's records are
            damaged, since what it keeps is not known.
        """
        with _models_lock(self.workspace):
            return self._remove_old_models(keep)

    def _remove_old_models(self, keep: int) -> list[int]:
        versions, decisions = self.versions(), self.decisions()
        kept = _kept(versions, decisions, keep)
        try:
            in_use = _places(self.workspace, kept) | self._kept_by_others()
        except DamagedRecordError:
            return []
        removed = []
        for version in versions:
            path = version.model.kept_at(self.workspace)
            if version in kept or path is None or path in in_use:
                continue
            # a record that somebody changed deletes nothing else
            if self._is_own(path) and self.workspace.has(path):
                self.workspace.remove(path)
                removed.append(version.number)
        self.workspace.remove_unshared()
        return removed

    def _kept_by_others(self) -> set[str]:
        """Where weights lie that other registries keep: two channels may have one model."""
        places: set[str] = set()
        for name in set(self.workspace.names("registry")) - {self.name}:
            versions = _read_all(self.workspace, f"registry/{name}/versions", Version)
            if not versions:
                continue
            decisions = _read_all(self.workspace, f"registry/{name}/decisions", Decision)
            keep = versions[-1].parameters.promotion.keep_models
            places |= _places(self.workspace, _kept(versions, decisions, keep))
        return places

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


def _decision(version: int, champion: int | None, why: str) -> Callable[[int], Decision]:
    """Makes the decision for its number."""
    return lambda number: Decision(
        number=number, version=version, champion=champion, why=why, at=datetime.now(UTC)
    )


def _models_lock(workspace: Workspace) -> FileLock:
    """Held while weights are deleted, and while a version is chosen whose weights must stay.

    It is one for all channels, since two may have one model. Among machines it holds as all locks.
    """
    return workspace.lock(".models.lock")


def _kept(versions: list[Version], decisions: list[Decision], keep: int) -> list[Version]:
    """The newest versions and the last champions, `keep` of each."""
    decided = [decision.champion for decision in reversed(decisions)]
    champions = list(dict.fromkeys(number for number in decided if number))[:keep]
    newest = versions[-keep:]
    return [version for version in versions if version in newest or version.number in champions]


def _places(workspace: Workspace, versions: list[Version]) -> set[str]:
    """Where the workspace keeps their models, and those that they were trained from."""
    models = [model for version in versions for model in (version.model, version.untouched)]
    return {place for model in models if (place := model.kept_at(workspace))}


def registries(workspace: Workspace) -> list[Registry]:
    """The channels that have a version, by name; of each the registry that is in use."""
    found: list[Identity] = []
    registries = []
    for name in workspace.names("registry"):
        try:
            identity = _identity_of(workspace, name)
        except MissingSourceError:  # a channel that can only be used where its source is
            continue
        if identity and not any(identity.is_same(other) for other in found):
            found.append(identity)
            asked = _first_version(workspace, name).parameters.channel
            channel = identity.id if identity.source == "folder" else asked
            registries.append(Registry(workspace, identity.source, channel, identity))
    return registries


def _claim(identity: Identity) -> str:
    """Where the name of a channel's registry is kept."""
    return f"channels/{fingerprint('registry', identity.source, identity.id or '')[:32]}.txt"


def _first_version(workspace: Workspace, name: str) -> Version:
    [version] = _read_all(workspace, f"registry/{name}/versions", Version, first=1)
    return version


def _identity_of(workspace: Workspace, name: str) -> Identity | None:
    """Whose registry a folder is; None if it has no version yet."""
    if not _records(workspace, f"registry/{name}/versions"):
        return None
    try:
        stored = workspace.place(f"registry/{name}/channel.json").read_bytes()
        claimed = Identity.model_validate_json(stored)
        if not _may_be_a_folder(claimed):
            return claimed
    except (OSError, ValueError):  # none, from an earlier thumbtune or a damaged one
        pass
    first = _first_version(workspace, name)
    asked = first.parameters
    channel = recorded_channel(workspace, asked.source, asked.channel or "", first.examples)
    identity = identify_here(workspace, asked.source, channel)
    return identity.model_copy(update={"id": _watched_id(workspace, name) or identity.id})


def _may_be_a_folder(claimed: Identity) -> bool:
    """Whether it is `name:configuration`, as an earlier thumbtune called a folder's as well."""
    named = claimed.id or ""
    return claimed.source == "hub" and ":" in named and not PurePath(named).is_absolute()


class _Watched(BaseModel):
    """What an earlier thumbtune wrote into watch.json."""

    channel_id: str | None = None


def _watched_id(workspace: Workspace, name: str) -> str | None:
    try:
        watched = workspace.read(f"registry/{name}/watch.json")
        return _Watched.model_validate_json(watched).channel_id
    except (OSError, ValueError):
        return None


def _folders_of(workspace: Workspace, identity: Identity) -> list[str]:
    """The folders of a channel's registries; first the one whose champion is the newest.

    There are several if an earlier thumbtune, which went by the spelling, made them.
    """
    found = []
    for name in workspace.names("registry"):
        try:
            other = _identity_of(workspace, name)
        except DamagedRecordError:  # of whatever channel: who reads its history is told
            continue
        if other and identity.is_same(other):
            found.append(name)
    if len(found) < 2:
        return found
    return sorted(found, key=lambda name: _last_champion(workspace, name), reverse=True)


def _last_champion(workspace: Workspace, name: str) -> datetime:
    """When a registry's champion was decided on; long ago if it has none."""
    decisions = _read_all(workspace, f"registry/{name}/decisions", Decision)
    times = [decision.at for decision in decisions if decision.champion]
    return times[-1] if times else datetime.min.replace(tzinfo=UTC)


def find_registry(workspace: Workspace, source: str | None, channel: str | None) -> Registry:
    """The registry of a channel that has a model; the only one if nothing is given.

    The bundled sample is meant only if it is named or nothing else is there.

    Args:
        channel: in any spelling.

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
        if source in (None, registry.source) and (channel is None or registry.is_of(channel))
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
        if field == "parameters.source":
            raise MissingSourceError(
                f"The record {workspace}/{path} is of the source {problem['input']!r}, which is "
                "not installed here. Install the package that brings it; nothing is lost."
            ) from None
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
        if workspace.create(f"{folder}/{number:06}.json", _as_bytes(record)):
            return record
    raise AssertionError("unreachable")


def _as_bytes(record: BaseModel) -> bytes:
    return record.model_dump_json(indent=1).encode()
