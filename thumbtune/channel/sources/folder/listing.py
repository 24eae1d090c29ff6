"""Source `folder`: a manifest beside pictures, or what yt-dlp wrote. See docs/folders.md.

A manifest is manifest.json (a list), manifest.jsonl or manifest.csv with the fields id, title and
image, optionally duration (ISO 8601 or seconds) and publishedAt. A yt-dlp folder has a
`<name>.info.json` for each video and its thumbnail
(`yt-dlp --write-info-json --write-thumbnail --skip-download`).
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thumbtune.channel.downloads import RefusedHostError, check_url
from thumbtune.channel.listing import Video
from thumbtune.channel.source import Tell, say_nothing
from thumbtune.channel.sources.fields import date, duration, listed, text
from thumbtune.channel.sources.folder import yt_dlp
from thumbtune.channel.sources.folder.manifest import MANIFESTS, read_rows
from thumbtune.channel.sources.pictures import Pictures, address_in, file_version
from thumbtune.errors import SourceError
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.store.workspace import fingerprint


def list_folder(folder: Path, tell: Tell = say_nothing) -> tuple[list[Video], Counter[str]]:
    """Read a folder's videos, in the order of the manifest or of the file names.

    Args:
        tell: is given a sentence for each thing that a user should know of.

    Returns:
        The videos, and reason → number of entries that are no videos to learn from.

    Raises:
        SourceError: no such folder, nothing to read in it, or a wrong entry; names the file, the
            entry, the field and the mend.
    """
    if not folder.is_dir():
        raise SourceError(f"channel: there is no folder {str(folder)!r}. Give an existing folder.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise SourceError(f"channel: the folder {str(folder)!r} may not be read. Allow it.")
    manifests, infos = manifests_in(folder), _infos_below(folder)
    if manifests:
        others = [file.name for file in [*manifests[1:], *infos[:1]]]
        if others:
            tell(
                f"{manifests[0].name} is read, not {listed(others)} beside it. "
                "Move away what should not count."
            )
        return _from_manifest(manifests[0]), Counter()
    if infos:
        return yt_dlp.read_folder(folder, infos, tell)
    raise SourceError(
        f"channel: {str(folder)!r} has neither a manifest ({', '.join(MANIFESTS)}) nor yt-dlp's "
        "*.info.json files. Add a manifest with the fields id, title and image, or run "
        f"{yt_dlp.WRITE_ALL} there."
    )


def check_pictures(
    folder: Path, videos: Sequence[Video], parameters: ThumbnailsParameters, tell: Tell
) -> None:
    """Tell which pictures are not there, or may not be fetched, before anything costs time.

    Raises:
        SourceError: they are more than `thumbnails.max_bad_share` of all.
    """
    files = [video.thumbnails["file"] for video in videos if is_local(video)]
    missing = [file for file in files if not Path(file).is_file()]
    refused = [refusal for refusal in (_refusal(video, parameters) for video in videos) if refusal]
    told = []
    if missing:
        names = (os.path.relpath(file, folder.resolve()) for file in missing)
        told.append(
            f"{len(missing)} of {len(videos)} pictures are not in {str(folder)!r}: "
            f"{listed(names, 3)}. Put them there, or mend the names."
        )
    if refused:
        told.append(f"{len(refused)} of {len(videos)} pictures may not be fetched: {refused[0]}.")
    if len(missing) + len(refused) > parameters.max_bad_share * len(videos):
        raise SourceError(
            f"channel: {' '.join(told)} thumbnails.max_bad_share="
            f"{parameters.max_bad_share:g} allows fewer."
        )
    for sentence in told:
        tell(f"Left out: {sentence}")


def manifests_in(folder: Path) -> list[Path]:
    """A folder's manifests, in the order in which they count; case of the name does not."""
    files = sorted(folder.iterdir())
    return [file for name in MANIFESTS for file in files if file.name.lower() == name]


def is_channel(folder: Path) -> bool:
    """Whether a folder says itself which videos it holds."""
    return bool(manifests_in(folder)) or any(folder.glob("*.info.json"))


def folder_stamp(folder: Path) -> str:
    """Changes whenever a file of the folder changes: from names, sizes and times, unread."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [os.fsencode(file.relative_to(folder)) for file in files]  # a name may be no UTF-8
    versions = [file_version(file).encode() for file in files]
    return fingerprint(*(b" ".join(pair) for pair in zip(names, versions, strict=True)))


def _infos_below(folder: Path) -> list[Path]:
    files = folder.rglob("*.info.json")
    return sorted(file for file in files if not file.name.startswith("._"))  # of macOS


def is_local(video: Video) -> bool:
    """Whether a video's picture is a file, and no URL."""
    return "file" in video.thumbnails


def _refusal(video: Video, parameters: ThumbnailsParameters) -> str:
    if url := video.thumbnails.get("high"):
        try:
            check_url(url, parameters.allowed_hosts)
        except RefusedHostError as refused:
            return str(refused)
    return ""


def _from_manifest(manifest: Path) -> list[Video]:
    pictures = Pictures(manifest.parent)
    videos = [_manifest_video(pictures, row, place) for place, row in read_rows(manifest)]
    if not videos:
        raise SourceError(
            f"channel: {manifest.name} lists no video. Give each a row with id, title and image."
        )
    return videos


def _manifest_video(pictures: Pictures, row: dict[str, Any], place: str) -> Video:
    video_id, image = text(row, "id", place), text(row, "image", place)
    if address := address_in(image):
        thumbnail: dict[str, Any] = {"thumbnails": {"high": address}}
    else:
        thumbnail = pictures.as_thumbnail(pictures.named(image, place))
    return Video(
        id=video_id,
        title=text(row, "title", place, may_be_empty=True),
        **thumbnail,
        duration_seconds=duration(row.get("duration"), place),
        published_at=date(row.get("publishedAt"), place),
    )
