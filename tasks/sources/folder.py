"""Source `folder`: a manifest beside pictures, or what yt-dlp wrote.

A manifest is manifest.json (a list), manifest.jsonl or manifest.csv with the fields id, title and
image, optionally duration (ISO 8601 or seconds) and publishedAt. A yt-dlp folder has a
`<name>.info.json` for each video and its thumbnail beside it
(`yt-dlp --write-info-json --write-thumbnail --skip-download`).
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.sources import SourceError, Video, parse_duration
from tasks.workspace import fingerprint

MANIFESTS = ("manifest.json", "manifest.jsonl", "manifest.csv")
PICTURES = (".jpg", ".jpeg", ".webp", ".png", ".gif")


def list_folder(folder: Path) -> tuple[list[Video], Counter[str]]:
    """Read a folder's videos, in the order of the manifest or of the file names.

    Returns:
        The videos, and reason → number of entries that are no videos to learn from.

    Raises:
        SourceError: no such folder, nothing to read in it, or a wrong entry; names the file, the
            entry, the field and the mend.
    """
    if not folder.is_dir():
        raise SourceError(f"channel: there is no folder {str(folder)!r}. Give an existing folder.")
    for name in MANIFESTS:
        if (folder / name).exists():
            return _from_manifest(folder / name), Counter()
    if any(folder.glob("*.info.json")):
        return _from_yt_dlp(folder)
    raise SourceError(
        f"channel: {str(folder)!r} has neither a manifest ({', '.join(MANIFESTS)}) nor yt-dlp's "
        "*.info.json files. Add a manifest with the fields id, title and image, or run "
        "yt-dlp --write-info-json --write-thumbnail --skip-download there."
    )


def folder_stamp(folder: Path) -> str:
    """Changes whenever a file of the folder changes: from names, sizes and times, unread."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [os.fsencode(file.relative_to(folder)) for file in files]  # a name may be no UTF-8
    versions = [file_version(file).encode() for file in files]
    return fingerprint(*(b" ".join(pair) for pair in zip(names, versions, strict=True)))


def file_version(file: Path) -> str:
    """Size and modification time of a file; empty when it is missing."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _from_manifest(manifest: Path) -> list[Video]:
    return [
        _manifest_video(manifest.parent, row, f"{manifest.name}, entry {number}")
        for number, row in enumerate(_rows(manifest), 1)
    ]


def _rows(manifest: Path) -> Iterator[Any]:
    text = _content(manifest)
    if manifest.suffix == ".csv":
        try:
            yield from csv.DictReader(io.StringIO(text, newline=""))
        except csv.Error as error:
            raise SourceError(f"{manifest.name}: not valid CSV ({error}).") from None
        return
    lines = [text] if manifest.suffix == ".json" else text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}" if manifest.suffix == ".jsonl" else "the file"
        value = _json(line, f"{manifest.name}: {place} is")
        if manifest.suffix == ".jsonl":
            yield value
        elif isinstance(value, list):
            yield from value
        else:
            raise SourceError(f"{manifest.name}: must be a JSON list of videos.")


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.name}: not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise SourceError(f"{file.name}: cannot be read ({error.strerror}).") from None


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{place} not valid JSON ({error}).") from None


def _manifest_video(folder: Path, row: Any, place: str) -> Video:
    if not isinstance(row, dict):
        raise SourceError(f"{place}: must be an object with id, title and image.")
    video_id, image = _text(row, "id", place), _text(row, "image", place)
    path = _inside(folder, image, place)
    return Video(
        id=video_id,
        title=_text(row, "title", place, may_be_empty=True),
        thumbnails={"file": str(path)},
        thumbnail_version=file_version(path),
        duration_seconds=_duration(row.get("duration"), place),
        published_at=_date(row.get("publishedAt"), place),
    )


def _inside(folder: Path, image: str, place: str) -> Path:
    """A picture's path, which stays in the folder even if it is a link."""
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


def _text(row: dict[str, Any], field: str, place: str, may_be_empty: bool = False) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise SourceError(f"{place}: the field {field!r} is missing or no text; add it.")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can say half of a character: "\ud800"
        raise SourceError(f"{place}: the field {field!r} is no valid Unicode; mend it.") from None
    return value.strip()


def _duration(value: Any, place: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        seconds = -1.0
    except (TypeError, ValueError):
        seconds = parse_duration(str(value), unknown=-1.0)
    if not 0 <= seconds < float("inf"):
        raise SourceError(
            f"{place}: duration {value!r:.50} is neither seconds nor ISO 8601 such as 'PT4M30S'."
        )
    return seconds


def _date(value: Any, place: str) -> str | None:
    if value in (None, ""):
        return None
    try:
        moment = datetime.fromisoformat(str(value))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise SourceError(
            f"{place}: publishedAt {value!r:.50} is not ISO 8601 such as '2024-05-01T12:00:00Z'."
        ) from None


def _from_yt_dlp(folder: Path) -> tuple[list[Video], Counter[str]]:
    videos: list[Video] = []
    dropped: Counter[str] = Counter()
    for file in sorted(folder.glob("*.info.json")):
        info = _json(_content(file), f"{file.name}:")
        if not isinstance(info, dict):
            raise SourceError(f"{file.name}: must be a JSON object.")
        if info.get("_type", "video") != "video":
            continue  # the channel's or playlist's own description
        state = {"is_live": "live now", "is_upcoming": "upcoming"}.get(str(info.get("live_status")))
        if state:
            dropped[state] += 1
        else:
            videos.append(_yt_dlp_video(file, info))
    return videos, dropped


def _yt_dlp_video(file: Path, info: dict[str, Any]) -> Video:
    stem = file.name.removesuffix(".info.json")
    pictures = [file.with_name(stem + ending) for ending in PICTURES]
    picture = next((path for path in pictures if path.exists()), pictures[0])
    picture = _inside(file.parent, picture.name, file.name)
    day = str(info.get("upload_date") or "")
    return Video(
        id=_text(info, "id", file.name),
        title=_text(info, "title", file.name, may_be_empty=True),
        thumbnails={"file": str(picture)},
        thumbnail_version=file_version(picture),
        duration_seconds=_duration(info.get("duration"), file.name),
        published_at=_date(f"{day[:4]}-{day[4:6]}-{day[6:8]}" if day else None, file.name),
    )
