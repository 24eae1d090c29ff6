"""What a disk that is full or may not be written to says to the user."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import says_full
from tasks.storage import WorkspaceError, is_url
from tasks.workspace import mirrors

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


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
    number = error.errno if isinstance(error, OSError) else None
    if disk_error(error):
        return (
            f"No space left in the workspace {workspace} ({_free(workspace)}). Free some, then run "
            "again: what is stored is kept."
        )
    if isinstance(error, OSError) and number in REFUSED and _is_in(error.filename, workspace):
        return (
            f"workspace: {error.filename} cannot be written ({error.strerror}). Give this user the "
            "right to write there, or choose another workspace."
        )
    return None


def disk_error(error: BaseException | None) -> BaseException | None:
    """That error, or the one that it came from, which says that a disk is full."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in FULL or says_full(str(error)):
            return error
        error = error.__cause__
    return None


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
