"""Reads what yt-dlp wrote: a `<name>.info.json` for each video, and thumbnails."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from thumbtune.channel.listing import Video
from thumbtune.channel.sources.fields import (
    content,
    date,
    duration,
    is_unicode,
    listed,
    parsed,
    text,
)
from thumbtune.channel.sources.pictures import Pictures, address_in, inside
from thumbtune.errors import SourceError

WRITE_ALL = "yt-dlp --write-info-json --write-thumbnail --skip-download"
UNREADABLE = "unreadable info.json"
OLDER = "older info.json of the same video"
STATES = {"is_live": "live now", "is_upcoming": "upcoming"}


class Info(NamedTuple):
    """One video's description."""

    file: Path
    fields: dict[str, Any]
    id: str

    @property
    def written(self) -> float:
        """When: yt-dlp's epoch, else the file's time.

        The file's time is cut to seconds: of files that were copied together, it tells no more.
        """
        epoch = self.fields.get("epoch")
        if isinstance(epoch, int | float) and not isinstance(epoch, bool):
            return float(max(0, min(epoch, 1e18)))
        return float(int(self.file.stat().st_mtime))


def read_folder(
    folder: Path, files: list[Path], tell: Callable[[str], None]
) -> tuple[list[Video], Counter[str]]:
    """The videos of a folder's *.info.json, in the order of the files.

    A file that cannot be used leaves out its video, and of two of one video the newer counts.

    Returns:
        The videos, and reason → number of those left out.

    Raises:
        SourceError: no file describes a video.
    """
    unreadable: list[SourceError] = []
    infos = list(_infos(files, unreadable))
    kept = _newest(infos)
    newest = {info.file for info in kept}
    older = [info.file.name for info in infos if info.file not in newest]
    states = Counter(state for info in kept if (state := _state(info)))
    pictures = Pictures(folder)
    videos = list(_videos([info for info in kept if not _state(info)], pictures, unreadable))
    if unreadable and not videos and not states:
        raise unreadable[0]
    if not infos:
        raise _no_video(folder, files)
    if unreadable:
        tell(f"Left out, since it cannot be used: {'; '.join(map(str, unreadable[:5]))}")
    if older:
        tell(f"Left out, since a newer info.json describes the same video: {listed(older, 5)}")
    left_out = Counter({UNREADABLE: len(unreadable), OLDER: len(older)}) + states
    return videos, left_out


def _infos(files: list[Path], unreadable: list[SourceError]) -> Iterator[Info]:
    """Those that describe a video, rather than a channel or a playlist."""
    for file in files:
        try:
            fields = parsed(content(file), f"{file.name}:")
            if not isinstance(fields, dict):
                raise SourceError(f"{file.name}: must be a JSON object.")
            if fields.get("_type", "video") == "video":
                yield Info(file, fields, text(fields, "id", file.name))
        except SourceError as error:
            unreadable.append(error)


def _newest(infos: list[Info]) -> list[Info]:
    """One of each video; of those of one moment the first by name."""
    same: dict[str, list[Info]] = defaultdict(list)
    for info in infos:
        same[info.id].append(info)
    return [max(group, key=lambda info: info.written) for group in same.values()]


def _state(info: Info) -> str | None:
    return STATES.get(str(info.fields.get("live_status")))


def _videos(
    infos: list[Info], pictures: Pictures, unreadable: list[SourceError]
) -> Iterator[Video]:
    for info in infos:
        try:
            yield _video(info, pictures)
        except SourceError as error:
            unreadable.append(error)


def _video(info: Info, pictures: Pictures) -> Video:
    name, day = info.file.name, str(info.fields.get("upload_date") or "")
    return Video(
        id=info.id,
        title=text(info.fields, "title", name, may_be_empty=True),
        **_thumbnail(info, pictures),
        duration_seconds=duration(info.fields.get("duration"), name),
        published_at=date(f"{day[:4]}-{day[4:6]}-{day[6:8]}" if day else None, name),
    )


def _thumbnail(info: Info, pictures: Pictures) -> dict[str, Any]:
    """A file of the folder; without one, the address from which yt-dlp would have fetched it."""
    if file := pictures.beside(info.file, info.id):
        return pictures.as_thumbnail(file)
    address = info.fields.get("thumbnail")
    if isinstance(address, str) and is_unicode(address) and address_in(address):
        return {"thumbnails": {"high": address_in(address)}}
    expected = f"{info.file.name.removesuffix('.info.json')}.jpg"
    return pictures.as_thumbnail(inside(info.file.parent, expected, info.file.name))


def _no_video(folder: Path, files: list[Path]) -> SourceError:
    return SourceError(
        f"channel: {str(folder)!r} holds the description of a channel or playlist "
        f"({listed((file.name for file in files), 1)}), but none of a video. Run {WRITE_ALL} "
        "there, without --flat-playlist, so that each video gets an info.json and a thumbnail."
    )
