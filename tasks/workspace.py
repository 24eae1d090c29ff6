"""The workspace folder: everything heavy that a run keeps, named by its content.

Tables of rows are JSON Lines files. A reference to one (`Table`) is what passes between tasks. All
writes go to a temporary file that is then renamed, so a killed run leaves no half-written file.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path, PurePath
from typing import Self, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict

Row = TypeVar("Row", bound=BaseModel)


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


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; readers see the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:  # with the user's usual permissions, unlike mkstemp
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_folder(folder: Path, target: Path) -> None:
    """Put a finished folder in its place; what stood there before is removed.

    Of two runs that do so at once, each finds the place empty or clears it; the last one stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            folder.replace(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            target.replace(old)
        shutil.rmtree(old, ignore_errors=True)


LEFTOVER = re.compile(r"\.(.+\.)?[0-9a-f]{32}(\.\w+)?|\.model\.\w{8}")
"""How files and folders are named while they are written."""

LIVING = timedelta(days=1)
"""No run that lives takes so long to write one of them."""


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


class OutsideWorkspaceError(ValueError):
    """A stored path leads out of the workspace."""


class Workspace(BaseModel):
    """A folder with an identity; results cached for one workspace do not hold for another."""

    model_config = ConfigDict(frozen=True)

    root: Path
    id: str

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the workspace at `root`, made if it is not there."""
        root = root.expanduser().resolve()
        root.mkdir(parents=True, exist_ok=True)
        marker = root / "workspace-id"
        if not marker.exists():
            newcomer = root / f".workspace-id.{uuid.uuid4().hex}"
            newcomer.write_text(uuid.uuid4().hex)
            with contextlib.suppress(FileExistsError):  # of two runs that start at once, one wins
                os.link(newcomer, marker)
            newcomer.unlink()
        return cls(root=root, id=marker.read_text())

    def place(self, path: str) -> Path:
        """Where a stored path leads. Links within the workspace are its owner's, and followed.

        Args:
            path: relative to the workspace, as tables and cached results have it.

        Raises:
            OutsideWorkspaceError: it leads out of the workspace: somebody has changed it.
        """
        if not path or PurePath(path).is_absolute() or ".." in PurePath(path).parts:
            raise OutsideWorkspaceError(
                f"The stored path {path!r} leads out of the workspace {self.root}. Delete the file "
                "that names it; it is made again."
            )
        return self.root / path

    def has(self, path: str) -> bool:
        """Whether a stored path leads to something in the workspace."""
        try:
            return self.place(path).exists()
        except OutsideWorkspaceError:
            return False

    def holds(self, path: str, content: str) -> bool:
        """Whether a stored path leads to a file of this content, given by its fingerprint."""
        return self.has(path) and fingerprint(self.place(path).read_bytes()) == content

    def remove_leftovers(self) -> int:
        """Delete what killed runs left half-written; the number of such files and folders."""
        old = time.time() - LIVING.total_seconds()
        removed = 0
        for folder, folders, files in os.walk(self.root):
            for name in [*folders, *files]:
                path = Path(folder, name)
                if not LEFTOVER.fullmatch(name) or path.lstat().st_mtime > old:
                    continue
                if name in files or path.is_symlink():
                    path.unlink(missing_ok=True)
                else:
                    folders.remove(name)
                    shutil.rmtree(path, ignore_errors=True)
                removed += 1
        return removed

    def write_file(self, path: str, data: bytes) -> None:
        """Store a file named by its content; one that is there and intact is left alone."""
        file = self.place(path)
        if not file.exists() or file.read_bytes() != data:
            write_atomically(file, data)

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
