"""The workspace: everything heavy that a run keeps, named by its content.

Tables of rows are JSON Lines files. A reference to one (`Table`) is what passes between tasks. All
that is stored goes through `Workspace`, which keeps it in a local folder or in a bucket: see
`thumbtune.store.storage`.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import Self, TypeVar

import xxhash
from filelock import FileLock
from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict

from thumbtune.errors import UserError
from thumbtune.store.shared_files import KEPT, remove_unshared
from thumbtune.store.storage import (
    LIVING,
    LocalStorage,
    RemoteStorage,
    Storage,
    WorkspaceError,
    checked_location,
    is_url,
    remove_leftovers,
)

Row = TypeVar("Row", bound=BaseModel)

MARKER = "workspace-id"


def fingerprint(*parts: str | bytes | memoryview) -> str:
    """SHA-256 of the parts, in hex; each part's length counts, so ("ab",) ≠ ("a", "b")."""
    digest = hashlib.sha256()
    for part in parts:
        data = memoryview(part.encode() if isinstance(part, str) else part)
        digest.update(data.nbytes.to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def checksum(*parts: str | bytes | memoryview) -> str:
    """XXH3 (128 bits) of the parts, in hex: a gigabyte of weights takes a tenth of a second.

    For what nobody would forge: it tells damage and difference, not malice.
    """
    digest = xxhash.xxh3_128()
    for part in parts:
        data = memoryview(part.encode() if isinstance(part, str) else part)
        digest.update(data.nbytes.to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


SETTLED = 2.0  # seconds; in less, a file system may give two states of a file the same time
_known_sha256: dict[tuple[int, ...], str] = {}
"""State of a file → hash: a run meets the same gigabyte of weights in every step."""


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, read once a process for as long as nobody touches it."""
    status = file.stat()
    # of the times, a program can set all but that of the last change (ctime)
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if state not in _known_sha256:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time() - status.st_ctime < SETTLED:
            return content
        _known_sha256[state] = content
    return _known_sha256[state]


def mirrors() -> Path:
    """The folder of the mirrors of remote workspaces; THUMBTUNE_CACHE sets another one."""
    return Path(os.environ.get("THUMBTUNE_CACHE") or user_cache_path("thumbtune"))


class Table(BaseModel):
    """A reference to rows stored in the workspace, with what was left out on the way to them."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Relative to the workspace, so that a workspace may be moved."""
    fingerprint: str
    rows: int
    dropped: dict[str, int] = {}
    """Reason → number of rows that the step which wrote this table left out."""
    work: str = ""
    """What the step had to do for it, in words; another run may find it done."""

    def is_whole(self, workspace: "Workspace") -> bool:
        """Whether the stored rows are still there, unchanged."""
        return workspace.holds(self.path, self.fingerprint)


class OutsideWorkspaceError(UserError, ValueError):
    """A stored path leads out of the workspace."""


class Workspace(BaseModel):
    """A place with an identity; results cached for one workspace do not hold for another.

    A small value that goes to other machines: where its files, or the mirror of them, lie on a
    machine is known there.
    """

    model_config = ConfigDict(frozen=True)

    location: str
    """Absolute path of a local folder, or a URL that fsspec knows."""
    id: str

    @classmethod
    def find(cls, location: str | Path) -> Self:
        """The workspace at a local path or URL; nothing is made where there is none.

        Raises:
            WorkspaceError: a URL that cannot be used.
        """
        text = checked_location(location)
        if not is_url(text):
            text = str(Path(text).expanduser().resolve())
        here = cls(location=text.rstrip("/") or "/", id="")
        try:
            return here.model_copy(update={"id": here.read(MARKER).decode()})
        except FileNotFoundError:
            return here

    @classmethod
    def open(cls, location: str | Path) -> Self:
        """The workspace at a local path or URL, made if it is not there.

        Raises:
            WorkspaceError: a URL that cannot be used.
        """
        here = cls.find(location)
        if here.id:
            return here
        try:
            here.create(MARKER, uuid.uuid4().hex.encode())  # of two runs at once, one wins
        except FileNotFoundError:
            raise WorkspaceError(
                f"workspace: there is no place {here}. Make the bucket, or correct its name."
            ) from None
        return cls.find(location)

    def __str__(self) -> str:
        return self.location

    @property
    def root(self) -> Path:
        """The folder on this machine: the workspace itself, or the mirror of a remote one."""
        return self._storage.root

    @property
    def _storage(self) -> Storage:
        if not is_url(self.location):
            return LocalStorage(Path(self.location))
        return RemoteStorage(self.location, mirrors() / fingerprint(self.location, self.id)[:32])

    def _checked(self, path: str) -> str:
        """A stored path in its plain form. Links within the workspace are its owner's.

        Args:
            path: relative to the workspace, as tables and cached results have it.

        Raises:
            OutsideWorkspaceError: it leads out of the workspace: somebody has changed it.
        """
        pure = PurePosixPath(path)
        if not pure.parts or PurePath(path).is_absolute() or ".." in pure.parts:
            raise OutsideWorkspaceError(
                f"The stored path {path!r} leads out of the workspace {self}. Delete the file "
                "that names it; it is made again."
            )
        return pure.as_posix()

    def place(self, path: str) -> Path:
        """Where a stored file or folder lies on this machine, brought here first if need be.

        It is for what is never changed, only added: of what changes, `read` gives the newest.
        """
        return self._storage.place(self._checked(path))

    def places(self, paths: Iterable[str]) -> list[Path]:
        """The same of several, brought here side by side."""
        return self._storage.places([self._checked(path) for path in paths])

    def renew(self, path: str) -> bool:
        """Bring a file here once more, since it is damaged; False if it cannot be had again."""
        return self._storage.renew(self._checked(path))

    def forget(self, path: str) -> None:
        """Remove the copy on this machine of what is stored elsewhere; nothing if it is local."""
        self._storage.forget(self._checked(path))

    def has(self, path: str) -> bool:
        """Whether a stored path leads to something in the workspace."""
        return self.has_all([path])

    def has_all(self, paths: Iterable[str]) -> bool:
        """Whether each of the stored paths does."""
        try:
            return not self.missing(paths)
        except OutsideWorkspaceError:
            return False

    def touched_since(self, moment: datetime, paths: Iterable[str]) -> list[str]:
        """Those of the stored paths whose files on this machine were written or changed since."""
        since, touched = moment.timestamp(), []
        for path in paths:
            with suppress(FileNotFoundError):  # not on this machine
                if (self.root / self._checked(path)).stat().st_ctime > since:
                    touched.append(path)
        return touched

    def missing(self, paths: Iterable[str]) -> set[str]:
        """Those of the stored paths that lead to nothing."""
        return self._storage.missing([self._checked(path) for path in paths])

    def holds(self, path: str, content: str) -> bool:
        """Whether a stored path leads to a file of this content, given by its fingerprint."""

        try:
            return self.passes(path, lambda file: fingerprint(file.read_bytes()) == content)
        except OutsideWorkspaceError:
            return False

    def holds_now(self, path: str, content: str) -> bool:
        """The same of a file that is written anew under its path, by other machines too.

        A copy on this machine that is older is brought here once more.
        """
        try:
            now = fingerprint(self.read(path))
        except (OSError, OutsideWorkspaceError):
            return False
        return now == content and self.holds(path, content)

    def passes(self, path: str, check: Callable[[Path], bool]) -> bool:
        """Whether a stored file passes a check; a damaged copy is brought here once more."""

        def intact() -> bool:
            try:
                return check(self.place(path))
            except (OSError, ValueError):  # gone, or empty
                return False

        return intact() or (self.renew(path) and intact())

    def read(self, path: str) -> bytes:
        """A stored file as it is now, whoever wrote it. FileNotFoundError if there is none."""
        return self._storage.read(self._checked(path))

    def write(self, path: str, data: bytes) -> None:
        """Write a file, so that readers see the old one or the whole new one."""
        self._storage.write(self._checked(path), data)

    def remove_leftovers(self) -> int:
        """Delete what killed runs left half-written on this machine, once a day.

        Returns:
            The number of such files and folders.
        """
        looked = self.root / ".looked-for-leftovers"
        if looked.exists() and time.time() - looked.stat().st_mtime < LIVING.total_seconds():
            return 0
        looked.touch()
        return remove_leftovers(self.root)

    def remove_unshared(self) -> None:
        """Delete what folders shared and none does any more.

        A bucket's stay: who uses them is known to all machines together alone.
        """
        if not is_url(self.location):
            remove_unshared(self.root / KEPT, older_than=LIVING)

    def write_file(self, path: str, data: bytes) -> None:
        """Store a file named by its content; one that is there and intact is left alone."""
        file = self.root / self._checked(path)
        if not file.exists() or file.read_bytes() != data:
            self.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file where there is none; of several writers one wins, the others get False."""
        return self._storage.create(self._checked(path), data)

    def put(self, path: str, source: Path) -> None:
        """Move a finished file or folder from somewhere in `root` to its stored path."""
        self._storage.put(self._checked(path), source)

    def names(self, folder: str) -> list[str]:
        """The names in a stored folder, sorted; none if there is no such folder."""
        return self._storage.names(self._checked(folder))

    def remove(self, path: str) -> None:
        """Remove a stored file or folder, if it is there."""
        self._storage.remove(self._checked(path))

    def lock(self, path: str) -> FileLock:
        """A lock among the processes of this machine: the operating system's, so it ends with its
        process, however that dies."""
        file = self.root / self._checked(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file)

    def write_table(
        self,
        kind: str,
        rows: Iterable[Row],
        dropped: Mapping[str, int] | None = None,
        work: str = "",
    ) -> Table:
        """Store rows as `<kind>/<fingerprint>.jsonl`; equal rows give the same file."""
        lines = [row.model_dump_json() for row in rows]
        data = "".join(f"{line}\n" for line in lines).encode()
        digest = fingerprint(data)
        path = f"{kind}/{digest[:32]}.jsonl"
        self.write_file(path, data)
        dropped = dict(dropped or {})
        return Table(path=path, fingerprint=digest, rows=len(lines), dropped=dropped, work=work)

    def read_table(self, table: Table, row_type: type[Row]) -> list[Row]:
        """Read the rows of a table in their order."""
        with self.place(table.path).open("rb") as lines:
            return [row_type.model_validate_json(line) for line in lines]
