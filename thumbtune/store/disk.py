"""What a disk that is full or may not be written to says to the user."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from thumbtune.errors import says_full
from thumbtune.store.storage import WorkspaceError, is_url
from thumbtune.store.workspace import MARKER, mirrors

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
TOLD = re.compile(r"\[Errno (\d+)\] [^:]+: (['\"])(.+?)\2")
"""How Python tells an error of a file: its number and its path."""


@contextlib.contextmanager
def disk_errors_explained(location: str) -> Iterator[None]:
    """Tell in one sentence that the disk is full or refuses, whatever library met it.

    Args:
        location: of the workspace: a local path, or a URL, whose mirror lies on a disk.

    Raises:
        WorkspaceError: so it is. What was stored is whole, since each file is renamed when it is.
    """
    folder = mirrors() if is_url(location) else Path(location).expanduser().absolute()
    try:
        yield
    except WorkspaceError:
        raise
    except Exception as error:
        if told := _explained(error, folder):
            raise WorkspaceError(told) from error
        raise


def _explained(error: Exception, workspace: Path) -> str | None:
    if disk_error(error):
        return (
            f"No space left in the workspace {workspace} ({_free(workspace)}). Free some, then run "
            "again: what is stored is kept."
        )
    for cause in _causes(error):
        if not isinstance(cause, OSError) or cause.errno not in REFUSED:
            continue
        if _is_in(cause.filename, workspace):
            return _not_writable(cause)
    return None


def _not_writable(error: OSError) -> str:
    return (
        f"workspace: {error.filename} cannot be written ({error.strerror}). Give this user the "
        "right to write there, or choose another workspace."
    )


def in_plain_words(error: Exception) -> str:
    """What an error says, or in its place what a disk's refusal means in a workspace."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and says_refused(str(cause)):
            return _not_writable(cause)
    return str(error)


def says_refused(text: str) -> bool:
    """Whether an error's text is about a file of a workspace that cannot be written."""
    if not (told := TOLD.search(text)) or int(told[1]) not in REFUSED:
        return False
    folders = Path(told[3]).parents
    return mirrors() in folders or any(os.path.lexists(folder / MARKER) for folder in folders)


def disk_error(error: BaseException | None) -> BaseException | None:
    """That error, or the one that it came from, which says that a disk is full."""
    for cause in _causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if number in FULL or says_full(str(cause)):
            return cause
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one that it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _free(workspace: Path) -> str:
    try:
        return f"{shutil.disk_usage(workspace).free / 1e6:,.1f} MB free on its disk"
    except OSError:
        return "its disk is full"


def _is_in(path: object, workspace: Path) -> bool:
    """Whether an error is about the workspace, or about a folder on the way to it."""
    if not isinstance(path, str):
        return False
    place = Path(path)
    return place.is_relative_to(workspace) or workspace.is_relative_to(place)
