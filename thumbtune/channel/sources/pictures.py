"""Finds the pictures that a manifest or yt-dlp's files mean, by the other ways they are named.

Names come from other systems: macOS decomposes accents, Windows writes backslashes and ignores
case, a browser writes %20. A name is taken as written first; another spelling counts only if it
means one file.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from thumbtune.errors import SourceError

PICTURES = (".jpg", ".jpeg", ".webp", ".png", ".gif", ".jpe", ".jfif", ".apng", ".mpo", ".image")
"""Endings of what may be read, best first; `.image` is yt-dlp's where it does not know better."""

OTHER_PICTURES = (
    *(".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".svg", ".jxl", ".jp2", ".psd"),
    *(".ico", ".raw", ".dng", ".pdf"),
)
"""Endings of pictures that are counted as left out, rather than passed over in silence."""

ENDINGS = (*PICTURES, *OTHER_PICTURES)
URL = re.compile(r"https?://", re.IGNORECASE)
_WITHOUT_SCHEME = re.compile(r"//[\w-]+(\.[\w-]+)+/")  # as YouTube's pages have them
_ABSOLUTE = re.compile(r"([A-Za-z]:|~)?[\\/]+|file:/+([A-Za-z]:/+)?")
_ONE_OF_SEVERAL = re.compile(r"(?P<stem>.+?)(-thumb|-poster|[._](?P<number>\d{1,3}))", re.DOTALL)
_ID_AT_THE_END = re.compile(r".*\[(?P<id>[^\[\]]+)\]", re.DOTALL)


def address_in(image: str) -> str | None:
    """The URL that an image field holds, or None if it is the name of a file."""
    image = image.strip()
    if _WITHOUT_SCHEME.match(image):
        return f"https:{image}"
    return image if URL.match(image) else None


def inside(folder: Path, image: str, place: str) -> Path:
    """A picture's path, which stays in the folder even if it is a link.

    Raises:
        SourceError: it leads out of the folder, or cannot be the name of a file.
    """
    try:
        path = (folder / image).resolve()
        str(path).encode()
        path.exists()
    except UnicodeEncodeError:
        raise SourceError(f"{place}: the name {image!r} is not UTF-8. Rename it.") from None
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a ring, a NUL
        raise SourceError(f"{place}: image {image[:100]!r} is no file name ({error}).") from None
    if not path.is_relative_to(folder.resolve()):
        raise SourceError(f"{place}: image {image!r} lies outside the folder. Move it inside.")
    return path


def file_version(file: Path) -> str:
    """Size and modification time of a file; empty when it is missing."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def files_below(folder: Path) -> list[str]:
    """Relative names of all files of a folder, sorted, but for those that macOS adds to others."""
    files = (file for file in folder.rglob("*") if not file.name.startswith("._"))
    return sorted(str(file.relative_to(folder)) for file in files if file.is_file())


class Pictures:
    """The files of a folder, by the spellings of their names. It is read at the first need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def named(self, image: str, place: str) -> Path:
        """The file that a manifest's image names; if there is none, where it ought to be.

        Raises:
            SourceError: it lies outside the folder, or is no name.
        """
        for name in _spellings(image):
            if _ABSOLUTE.match(name) and not Path(name).is_relative_to(self.folder):
                found = next(filter(None, map(self._spelled, _tails(name))), None)
            else:
                exact = inside(self.folder, name, place)
                if exact.is_file():
                    return exact
                found = self._spelled(name)
            if found:
                return inside(self.folder, found, place)
        return inside(self.folder, image, place)

    def beside(self, description: Path, video_id: str) -> Path | None:
        """The thumbnail of a video that yt-dlp described in a file of this folder.

        The same name counts most, then the same name with an addition, then the id; then the same
        folder, the highest number (the largest picture), and the best type.
        """
        stem = _composed(description.name.removesuffix(".info.json"))
        known = self._thumbnails[stem] + self._thumbnails[_id_key(video_id)]
        here = description.parent.relative_to(self.folder)
        best = min(
            known, key=lambda way: (way[0], Path(way[-1]).parent != here, *way[1:]), default=None
        )
        return inside(self.folder, best[-1], description.name) if best else None

    def as_thumbnail(self, file: Path) -> dict[str, Any]:
        """The fields of a `Video` for a picture that is a file."""
        return {"thumbnails": {"file": str(file)}, "thumbnail_version": file_version(file)}

    @cached_property
    def _files(self) -> list[str]:
        return files_below(self.folder)

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        """Name without case and form, with and without the ending → files."""
        found: dict[str, list[str]] = defaultdict(list)
        for file in self._files:
            found[_spelling(file)].append(file)
            if without := _without_ending(file):
                found[_spelling(without)].append(file)
        return found

    def _spelled(self, name: str) -> str | None:
        """The only file that a name means in another spelling."""
        for wanted in filter(None, (name, _without_ending(name))):
            files = self._by_spelling.get(_spelling(wanted), [])
            files = [f for f in files if _composed(f) == _composed(wanted)] or files
            if len(files) == 1:
                return files[0]
        return None

    @cached_property
    def _thumbnails(self) -> dict[str, list[tuple[int, int, int, str]]]:
        """Stem or id → ways to a picture: kind of likeness, number, ending, file."""
        described = {
            _composed(Path(file).name.removesuffix(".info.json"))
            for file in self._files
            if file.endswith(".info.json")
        }
        found: dict[str, list[tuple[int, int, int, str]]] = defaultdict(list)
        for file in self._files:
            if (ending := Path(file).suffix.lower()) in ENDINGS:
                for kind, number, key in _keys(_composed(Path(file).stem), described):
                    found[key].append((kind, -number, ENDINGS.index(ending), file))
        return found


def _keys(stem: str, described: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """What a picture is found by: kind of likeness, number, and stem or id."""
    yield 0, 0, stem
    number = 0
    addition = _ONE_OF_SEVERAL.fullmatch(stem)
    if addition and stem not in described:  # else it is the picture of another video
        stem, number = addition["stem"], int(addition["number"] or 0)
        yield 1, number, stem
    bracketed = _ID_AT_THE_END.fullmatch(stem)
    yield 2, number, _id_key(bracketed["id"] if bracketed else stem)


def _id_key(video_id: str) -> str:
    return f"id/{video_id}"  # no stem holds a slash


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _spelling(name: str) -> str:
    return _composed(os.path.normpath(name)).casefold()


def _without_ending(name: str) -> str | None:
    """A picture's name without its ending; None for another file."""
    ending = Path(name).suffix
    return name.removesuffix(ending) if ending.lower() in ENDINGS else None


def _spellings(image: str) -> Iterator[str]:
    """An image as written, and as it is on this system."""
    yield from (image, image.replace("\\", "/"), unquote(image).replace("\\", "/"))


def _tails(name: str) -> Iterator[str]:
    """Parts of another machine's path that may be in this folder, the longest first."""
    parts = [part for part in re.split(r"[\\/]+", _ABSOLUTE.sub("", name, count=1)) if part]
    for start in range(len(parts)):
        yield "/".join(parts[start:])
