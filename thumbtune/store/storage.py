"""Where a workspace keeps its files: a local folder, or a place that fsspec reaches by its URL.

Such a place, mostly a bucket, has a mirror on each machine: a folder with copies of what was used
there, since models, safetensors and indexes are read from local files. What is written goes to the
remote place first, so what is in a mirror is in the remote place too, and a killed run leaves no
half object. Small records that change are always read from the remote place.
"""

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from thumbtune.errors import UserError
from thumbtune.store.shared_files import link, shared_of

AT_ONCE = 32  # requests to a remote place

PROTOCOLS = ("abfs", "az", "gcs", "gs", "memory", "s3", "s3a")
"""Of buckets. Others name a host of their own, which may be one that only this machine reaches;
THUMBTUNE_PROTOCOLS adds them."""

URL = re.compile(r"^[a-z0-9][a-z0-9+.-]*://", re.IGNORECASE)


LEFTOVER = re.compile(r"\.(.+\.)?[0-9a-f]{32}(\.\w+)?|\.model\.\w{8}")
"""How files and folders are named while they are written."""

LIVING = timedelta(days=1)
"""No run that lives takes so long to write one of them."""


class WorkspaceError(UserError, ValueError):
    """The workspace cannot be used; the message says why and what to do."""


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


def remove_leftovers(root: Path) -> int:
    """Delete what killed runs left half-written in a folder; the number of files and folders."""
    old = time.time() - LIVING.total_seconds()
    removed = 0
    for folder, folders, files in os.walk(root):
        for name in [name for name in (*folders, *files) if LEFTOVER.fullmatch(name)]:
            path = Path(folder, name)
            try:
                if path.lstat().st_mtime > old:
                    continue
            except FileNotFoundError:  # its writer has just finished it
                continue
            if name in files or path.is_symlink():
                path.unlink(missing_ok=True)
            else:
                folders.remove(name)
                shutil.rmtree(path, ignore_errors=True)
            removed += 1
    return removed


def is_url(location: str) -> bool:
    """Whether a workspace's location is a URL; else it is a local path."""
    return "://" in location


def checked_location(location: str | Path) -> str:
    """Where a workspace is, as it was given: a local path or a URL.

    Raises:
        WorkspaceError: it is a URL that names no place, or one with a password.
    """
    text = str(location)
    if not is_url(text):
        return text
    parts = urlsplit(text)
    if parts.password is not None:
        raise WorkspaceError(
            f"workspace: the {parts.scheme} URL holds a password. Leave it out and set it in the "
            "environment, for S3 as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if not URL.match(text) or not (parts.netloc or parts.path.strip("/")) or parts.query:
        raise WorkspaceError(
            "workspace: it is neither a local path nor a plain URL such as s3://bucket/folder."
        )
    return text


class Storage(Protocol):
    """What a workspace needs of the place where its files are. Paths are relative to it."""

    root: Path
    """Local folder of the files or of their mirror."""

    def place(self, path: str) -> Path:
        """Where a file or folder lies on this machine, brought here if it is not; nothing may be
        there."""
        ...

    def places(self, paths: Sequence[str]) -> list[Path]:
        """The same of several."""
        ...

    def renew(self, path: str) -> bool:
        """Bring a file here once more; False if this is the only copy, or there is none."""
        ...

    def forget(self, path: str) -> None:
        """Remove the copy on this machine, if it is not the only one."""
        ...

    def missing(self, paths: Sequence[str]) -> set[str]:
        """Those that are not there."""
        ...

    def read(self, path: str) -> bytes:
        """A file as it is now, whoever wrote it. FileNotFoundError if there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file, so that readers see the old one or the whole new one."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a file where there is none; False if there is one. One of several writers wins."""
        ...

    def put(self, path: str, source: Path) -> None:
        """Move a finished file or folder, which lies in `root`, to its place."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; hidden ones, which may be unfinished, are left out."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a folder, if it is there."""
        ...


class LocalStorage:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, path: str) -> Path:
        """See `Storage`, as for the others."""
        return self.root / path

    def places(self, paths: Sequence[str]) -> list[Path]:
        return [self.place(path) for path in paths]

    def renew(self, path: str) -> bool:
        return False

    def forget(self, path: str) -> None:
        pass

    def missing(self, paths: Sequence[str]) -> set[str]:
        return {path for path in paths if not self.place(path).exists()}

    def read(self, path: str) -> bytes:
        return self.place(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        write_atomically(self.place(path), data)

    def create(self, path: str, data: bytes) -> bool:
        file = self.place(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        newcomer = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        try:
            write_atomically(newcomer, data)
            os.link(newcomer, file)  # unlike a rename, it replaces nothing
        except FileExistsError:
            return False
        finally:
            newcomer.unlink(missing_ok=True)
        return True

    def put(self, path: str, source: Path) -> None:
        target = self.place(path)
        if source.is_dir():
            replace_folder(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)

    def names(self, folder: str) -> list[str]:
        try:
            found = [file.name for file in self.place(folder).iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if not name.startswith("."))

    def remove(self, path: str) -> None:
        place = self.place(path)
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


class RemoteStorage:
    """A place that fsspec reaches by its URL, and the mirror of it on this machine.

    Args:
        root: the folder of the mirror.
    """

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self.root = root
        self.mirror = LocalStorage(root)

    def place(self, path: str) -> Path:
        """See `Storage`, as for the others."""
        file = self.mirror.place(path)
        if not file.is_file() and not self._mark(path).exists():
            self._pull(path)
        return file

    def places(self, paths: Sequence[str]) -> list[Path]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.place, paths))

    def renew(self, path: str) -> bool:
        return self._pull(path)

    def forget(self, path: str) -> None:
        self._mark(path).unlink(missing_ok=True)
        self.mirror.remove(path)

    def missing(self, paths: Sequence[str]) -> set[str]:
        afar = sorted(self.mirror.missing(paths))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(lambda path: self._call("exists", self._key(path)), afar)
            return {path for path, there in zip(afar, found, strict=True) if not there}

    def read(self, path: str) -> bytes:
        data: bytes = self._call("cat_file", self._key(path))
        return data

    def write(self, path: str, data: bytes) -> None:
        self._call("pipe_file", self._key(path), data)
        self.mirror.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._call("pipe_file", self._key(path), data, mode="create")
        except FileExistsError:
            try:
                return self.read(path) == data  # ours, if the answer to a first try was lost
            except FileNotFoundError:  # the other writer is still at it
                return False
        return True

    def put(self, path: str, source: Path) -> None:
        key = self._key(path)
        if source.is_dir():
            elsewhere = {source / name for name in shared_of(source)}
            found = [file for file in source.rglob("*") if file.is_file()]
            files = [file.relative_to(source) for file in found if file not in elsewhere]
            keys = [f"{key}/{file.as_posix()}" for file in files]
            earlier = set(self._call("find", key))
            self._call("put", [str(source / file) for file in files], keys)
            if old := earlier - set(keys):
                self._call("rm", sorted(old))
        else:
            self._call("put_file", str(source), key)
        self._into_mirror(path, source)

    def names(self, folder: str) -> list[str]:
        try:
            found = self._call("ls", self._key(folder), detail=False)
        except FileNotFoundError:
            return []
        names = {PurePosixPath(key).name for key in found if key.rstrip("/") != self._key(folder)}
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, path: str) -> None:
        self.forget(path)  # first, so that the mirror never has more than the remote place
        if found := self._call("find", self._key(path)):
            with contextlib.suppress(FileNotFoundError):  # another machine was at it
                self._call("rm", found)

    def _pull(self, path: str) -> bool:
        """Bring a file or folder into the mirror; it appears there whole. False if there is none.

        What the mirror has of it stays if there is none.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        scratch = self.root / f".pull.{uuid.uuid4().hex}"
        try:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                self._call("get_file", self._key(path), str(scratch))
            if scratch.is_file():
                with scratch.open("rb") as file:
                    os.fsync(file.fileno())
            elif not self._pull_folder(path, scratch):
                return False
            self._into_mirror(path, scratch)
            return True
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.unlink(missing_ok=True)

    def _pull_folder(self, path: str, scratch: Path) -> bool:
        key = self._key(path)
        found = [file for file in self._call("find", key) if not file.endswith("/")]
        if found:
            places = [scratch / PurePosixPath(file).relative_to(key) for file in found]
            for place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
            self._call("get", found, [str(place) for place in places])
            for name, kept in shared_of(scratch).items():
                link(self.place(kept), scratch / name)
        return bool(found)

    def _into_mirror(self, path: str, source: Path) -> None:
        is_folder = source.is_dir()
        self.mirror.put(path, source)
        if is_folder:
            self._mark(path).touch()

    def _mark(self, path: str) -> Path:
        """Says that a folder of the mirror is whole: a single file of it may be there before."""
        place = self.mirror.place(path)
        return place.with_name(f".{place.name}.whole")

    def _key(self, path: str) -> str:
        _, base = self._file_system()
        return f"{base.rstrip('/')}/{path}"

    def _file_system(self) -> tuple[Any, str]:
        """fsspec's object, which it keeps for this process, and the URL as its path.

        Raises:
            WorkspaceError: the protocol is not allowed, or fsspec lacks a package for it.
        """
        protocol = self.url.partition("://")[0].lower()
        more = os.environ.get("THUMBTUNE_PROTOCOLS", "").replace(",", " ").split()
        if protocol not in {*PROTOCOLS, *more}:
            raise WorkspaceError(
                f"workspace: {self.url} has none of the protocols {', '.join(PROTOCOLS)}. Give a "
                "local path, or a URL such as s3://bucket/folder. THUMBTUNE_PROTOCOLS in the "
                "environment allows more of those that fsspec knows."
            )
        try:
            found: tuple[Any, str] = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            mend = "pip install 'thumbtune[s3]'" if protocol in ("s3", "s3a") else str(error)
            raise WorkspaceError(
                f"workspace: {self.url} needs a package that is not installed: {mend}"
            ) from None
        except ValueError:
            raise WorkspaceError(
                f"workspace: fsspec does not know the protocol of {self.url}. Correct "
                "THUMBTUNE_PROTOCOLS."
            ) from None
        return found

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        """Ask the file system.

        Raises:
            WorkspaceError: it refuses or does not answer.
            FileNotFoundError, FileExistsError, IsADirectoryError: as they say.
        """
        file_system, _ = self._file_system()
        try:
            return getattr(file_system, method)(*args, **options)
        except (FileNotFoundError, FileExistsError, IsADirectoryError):
            raise
        except Exception as error:  # each file system has its own
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # of the disk with the mirror
            if "ConditionalRequestConflict" in str(error):  # S3: another writer was at it
                raise FileExistsError(str(error)) from error
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> WorkspaceError:
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            return WorkspaceError(
                f"workspace: {self.url} does not let us in ({type(error).__name__}). Set "
                "credentials that may read and write there in the environment, for S3 as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        return WorkspaceError(
            f"workspace: {self.url} cannot be used ({type(error).__name__}). Check the URL and the "
            "network; for a storage service other than AWS set AWS_ENDPOINT_URL_S3."
        )
