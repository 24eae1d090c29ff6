"""Files that many folders of a workspace share: kept once, and linked into each.

A listing in a folder says which they are. In a bucket the folder goes without them, and each
machine's mirror links them in again.
"""

import contextlib
import errno
import os
import shutil
import time
import uuid
from datetime import timedelta
from pathlib import Path, PurePath
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

AnyPath = TypeVar("AnyPath", bound=PurePath)

LISTING = "shared.json"
KEPT = "frozen"
"""The folder of a workspace for what is shared."""

Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]
"""Of a file in the folder itself: a listing that somebody changed leads nowhere else."""
Place = Annotated[str, StringConstraints(pattern=rf"^{KEPT}/\w[\w.-]*$")]

NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV}
"""What file systems answer on which files have one name each."""


class Part(BaseModel):
    """A file of a folder that is cut in parts."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    shared: Place | None = None
    """Where in the workspace it is kept for all; None of a part that is the folder's own."""


class Listing(BaseModel):
    """What a folder is made of in place of one large file."""

    model_config = ConfigDict(frozen=True)

    parts: dict[Name, Part]
    """Name → file."""
    whole: dict[Name, str]
    """Name → SHA-256 of the file that the parts stand for."""
    made_from: str
    """Of what the shared parts can be made again, as whoever wrote this wants it."""

    @classmethod
    def of(cls, folder: Path) -> "Listing | None":
        """A folder's listing; None if it has none that can be read."""
        try:
            return cls.model_validate_json((folder / LISTING).read_bytes())
        except (OSError, ValueError):
            return None

    @property
    def shared(self) -> dict[str, str]:
        """Name of a file → where it is kept for all."""
        return {name: part.shared for name, part in self.parts.items() if part.shared}


def note_of(kept: AnyPath) -> AnyPath:
    """Where the SHA-256 of a kept file is written down."""
    return kept.with_name(f"{kept.name}.sha256")


def shared_of(folder: Path) -> dict[str, str]:
    """Name of a folder's file → where in the workspace it is kept for all folders."""
    listing = Listing.of(folder)
    return listing.shared if listing else {}


def link(kept: Path, target: Path) -> None:
    """Give a kept file one more name; where file systems have no links, copy it.

    A file may have some ten thousand names (65,000 on ext4): then those to come get a fresh copy.
    """
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(kept, scratch)
        except OSError as error:
            if error.errno == errno.EMLINK:
                _renew(kept)
                os.link(kept, scratch)
            elif error.errno in NO_LINKS:
                shutil.copyfile(kept, scratch)
            else:
                raise
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def remove_unshared(folder: Path, older_than: timedelta) -> None:
    """Delete the kept files that have no other name, and are not just about to get one."""
    moment = time.time() - older_than.total_seconds()
    for kept in folder.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # or another user's
            status = kept.stat()
            if status.st_nlink == 1 and status.st_ctime < moment:
                kept.unlink()
                note_of(kept).unlink()


def _renew(kept: Path) -> None:
    """Put a copy in the place of a kept file, which has no other names yet."""
    copy = kept.with_name(f".{kept.name}.{uuid.uuid4().hex}")
    try:
        shutil.copy2(kept, copy)
        copy.replace(kept)
    finally:
        copy.unlink(missing_ok=True)
