"""Step: fetch, verify and keep the thumbnails.

A picture is stored once, as it was fetched, under the hash of its bytes; a small index remembers
which URL gave it, so that a second run downloads nothing.
"""

import hashlib
import io
import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import requests
import urllib3
from PIL import ExifTags, Image
from prefect import task
from prefect.logging import get_run_logger
from pydantic import AwareDatetime, BaseModel, ConfigDict
from urllib3.util import Retry

from tasks.caching import content_key
from tasks.downloads import (
    RefusedHostError,
    TooLargeError,
    TooSlowError,
    check_url,
    checked_get,
    checked_session,
    read_body,
)
from tasks.errors import UserError
from tasks.negatives import Pair
from tasks.parameters import ThumbnailsParameters
from tasks.sources import Video
from tasks.splits import check_sizes
from tasks.workspace import Table, Workspace, fingerprint

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "GIF": "gif"}
"""Picture types that are accepted, with the ending of their files; MPO begins as JPEG."""

BEGINNINGS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb"....ftyp(avif|avis|....(....)*?avi[fs])",
    "HEIC": rb"....ftyp(hei[cfmsx]|hev[cmx]|mif1|msf1)",
    "a video": rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM....\0\0\0\0",
    "a Photoshop file": rb"8BPS",
    "an icon": rb"\0\0[\x01\x02]\0",
    "PDF": rb"%PDF",
    "a ZIP archive": rb"PK\x03\x04",
}
"""Type → how its files begin."""

MAX_BYTES = 20_000_000
TOO_LARGE = "larger than 20 MB"
NO_PICTURE = "not a JPEG, PNG, WebP or GIF picture"
BROKEN = "truncated or corrupt picture"
MOST_MEGAPIXELS = 178  # beyond twice Image.MAX_IMAGE_PIXELS Pillow opens nothing
MAX_SIDE = 16_384  # pixels
MAX_ASPECT = 10
"""CLIP scales the shorter side to 224 pixels and cuts out the square in the middle. Of a picture
that is longer than this it sees less than a tenth, and pays for all: 600,000 x 32 pixels would
become 4.2 million x 224, which takes gigabytes."""

MIN_SIDE = 32  # pixels; the smallest that YouTube makes is 120x90
PLACEHOLDER = (120, 90)  # size of the grey picture that YouTube shows for a missing thumbnail
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation → what makes the picture upright."""

DARK = 24  # of 255; JPEG noise keeps a black bar from being exactly 0


class Example(Pair):
    """A pair whose thumbnail is in the workspace: one row to train or measure on."""

    image: str
    """File of the thumbnail as it was fetched, relative to the workspace."""
    crop: tuple[int, int, int, int] | None = None
    """Left, upper, right and lower pixel of the picture inside a letterbox; None for all of it."""


class Thumbnail(BaseModel):
    """What became of one video's thumbnail: a picture, or the reason why there is none."""

    model_config = ConfigDict(frozen=True)

    video_id: str
    image: str | None = None
    crop: tuple[int, int, int, int] | None = None
    dropped: str | None = None
    may_come: bool = False
    """The fetch failed for a passing cause, so the next run should try again."""


class ThumbnailBatch(BaseModel):
    """The thumbnails of up to `thumbnails.batch_size` videos."""

    model_config = ConfigDict(frozen=True)

    thumbnails: list[Thumbnail]
    downloaded: int
    """Pictures that came over the network; the others were in the workspace or on disk."""
    checked_at: AwareDatetime = datetime.fromtimestamp(0, UTC)
    """When all pictures were as they were fetched; only what was touched since is read again."""

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """Several in one, the same however the videos were divided."""
        return cls(
            thumbnails=[thumbnail for batch in batches for thumbnail in batch.thumbnails],
            downloaded=sum(batch.downloaded for batch in batches),
        )

    @property
    def fingerprint(self) -> str:
        """Of the pictures, however they came."""
        return fingerprint(*(thumbnail.model_dump_json() for thumbnail in self.thumbnails))

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether every picture is still as it was and no failed fetch is worth another try."""
        images = [thumbnail.image for thumbnail in self.thumbnails if thumbnail.image]
        return (
            not any(thumbnail.may_come for thumbnail in self.thumbnails)
            and workspace.has_all(images)
            and all(
                is_intact(workspace, image)
                for image in workspace.touched_since(self.checked_at, images)
            )
        )


class BadThumbnailError(Exception):
    """A thumbnail is of no use; the message is the short reason that the funnel counts."""

    def __init__(self, reason: str, may_come: bool = False) -> None:
        super().__init__(reason)
        self.may_come = may_come


class DamagedThumbnailError(UserError):
    """A stored picture was not as it was fetched, and was removed; the next run fetches it."""


class TooManyBadThumbnailsError(UserError):
    """More thumbnails are unusable than `thumbnails.max_bad_share` allows."""


def verify(data: bytes, max_megapixels: float) -> Image.Image:
    """Decode a picture in full as the later steps will, or say what is wrong with it.

    Returns:
        The picture as `as_rgb` gives it.

    Raises:
        BadThumbnailError: not a picture, of another type, too large, long or small, cut short, or
            YouTube's grey placeholder.
    """
    kind = kind_of(data)
    if kind not in ENDINGS:
        raise BadThumbnailError(NO_PICTURE + (f" but {kind}" if kind else ""))
    limit = min(max_megapixels, MOST_MEGAPIXELS)
    try:
        with _opened(io.BytesIO(data)) as image:
            _check_size(image.size, limit)
            picture = as_rgb(image)
    except BadThumbnailError:
        raise
    except Image.DecompressionBombError:
        raise BadThumbnailError(f"more than {limit:g} megapixels") from None
    except Exception:  # whatever a decoder makes of a stranger's bytes
        raise BadThumbnailError(BROKEN) from None
    if is_placeholder(picture):
        raise BadThumbnailError("grey placeholder")
    return picture


def kind_of(data: bytes) -> str | None:
    """The type that a file's first bytes tell, whatever its name says; None if it is unknown."""
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    for kind, beginning in BEGINNINGS.items():
        if re.match(beginning, head, re.DOTALL):
            return kind
    words = head.lower() if head.startswith(b"<") else b""
    marks = {b"<svg": "SVG", b"<html": "a web page", b"<!doctype html": "a web page"}
    return next((kind for mark, kind in marks.items() if mark in words), None)


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise BadThumbnailError(f"more than {max_megapixels:g} megapixels")
    if min(size) < MIN_SIDE:
        raise BadThumbnailError(f"smaller than {MIN_SIDE} pixels")
    if max(size) > MAX_SIDE:
        raise BadThumbnailError(f"longer than {MAX_SIDE} pixels")
    if max(size) > MAX_ASPECT * min(size):
        raise BadThumbnailError(f"more than {MAX_ASPECT} times as long as wide")


def _opened(file: io.BytesIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, which we measure, and of odd metadata
        return Image.open(file, formats=["JPEG", "PNG", "WEBP", "GIF"])


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture as a browser shows it: upright, its first frame, 8 bits, on white.

    It carries no metadata, so that it is not turned twice.
    """
    turn = TURNS.get(_orientation(image))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I;16"):  # Pillow would cut off at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), picture).convert("RGB")
    picture = image.convert("RGB")
    picture.info.clear()
    return picture


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how the camera was held; 1, upright, where the metadata is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a browser shows the picture all the same
        return 1


def is_placeholder(picture: Image.Image) -> bool:
    """Whether this is the grey 120x90 picture that YouTube serves for a missing thumbnail.

    Args:
        picture: as `as_rgb` gives it.
    """
    if picture.size != PLACEHOLDER:
        return False
    return int(np.ptp(np.asarray(picture, np.int16), axis=2).max()) <= 12


def letterbox(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The 16:9 picture between the black bars of a 4:3 thumbnail, or None if there are no bars.

    YouTube pads `default`, `high` (480x360, bars of 45 pixels) and `standard` in this way.

    Args:
        image: as `as_rgb` gives it.
    """
    width, height = image.size
    bar = round((height - width * 9 / 16) / 2)
    if abs(width / height - 4 / 3) > 0.01 or bar < 4:
        return None
    luminance = np.asarray(image.convert("L"))
    edge = bar - 2  # the row at the picture's edge is blurred by JPEG's blocks
    bars = np.concatenate([luminance[:edge], luminance[height - edge :]])
    if np.percentile(bars, 99) > DARK:
        return None
    return (0, bar, width, height - bar)


def load_image(workspace: Workspace, example: Example) -> Image.Image:
    """The thumbnail of an example as an RGB picture, without its letterbox.

    Raises:
        OSError, DamagedThumbnailError: as `stored_picture`.
    """
    return load_cropped(stored_picture(workspace, example.image), example.crop)


def stored_picture(workspace: Workspace, path: str) -> Path:
    """Where a picture that the workspace keeps lies on this machine, as it was fetched.

    Raises:
        OSError: it is gone.
        DamagedThumbnailError: it is damaged, and removed: what is gone is fetched again.
    """
    if not is_intact(workspace, path) and workspace.place(path).exists():
        workspace.remove(path)
        raise DamagedThumbnailError(
            f"The thumbnail {workspace}/{path} was damaged, and was removed. Train again: it is "
            "fetched again, and nothing else."
        )
    return workspace.place(path)


NAMED_BY_CONTENT = re.compile("[0-9a-f]{64}")


def is_intact(workspace: Workspace, path: str) -> bool:
    """Whether a stored picture is there, and has the SHA-256 that it is named by."""

    def is_as_named(file: Path) -> bool:
        if not NAMED_BY_CONTENT.fullmatch(file.stem):  # put there by another program
            return file.is_file()
        return hashlib.sha256(file.read_bytes()).hexdigest() == file.stem

    return workspace.passes(path, is_as_named)


def load_cropped(file: Path, crop: tuple[int, int, int, int] | None) -> Image.Image:
    """A picture as RGB, without its letterbox.

    Raises:
        OSError: there is no such file.
        BadThumbnailError: it was damaged after it was verified.
    """
    stored = io.BytesIO(file.read_bytes())
    try:
        with _opened(stored) as image:
            picture = as_rgb(image)
    except Exception:  # as in `verify`, which lets nothing pass that cannot be read here
        raise BadThumbnailError(f"{file.name}: {BROKEN}") from None
    return picture.crop(crop) if crop else picture


def remove_damaged(workspace: Workspace) -> int:
    """Remove all damaged pictures that are on this machine; their number."""
    removed = 0
    for file in workspace.root.glob("thumbnails/[0-9a-f][0-9a-f]/[!.]*"):
        try:
            stored_picture(workspace, file.relative_to(workspace.root).as_posix())
        except DamagedThumbnailError:
            removed += 1
    return removed


class ThumbnailStore:
    """Pictures in the workspace, and the way to get those that are not there yet."""

    def __init__(self, workspace: Workspace, parameters: ThumbnailsParameters, refresh: bool):
        self.workspace = workspace
        self.parameters = parameters
        self.refresh = refresh
        self.downloaded: list[str] = []  # URLs; appending is safe among threads
        retry = Retry(
            total=4,
            backoff_factor=0.3,
            backoff_jitter=0.3,
            status_forcelist=(429, 500, 502, 503, 504),
            retry_after_max=30,
            raise_on_status=False,
        )
        self.session = checked_session(parameters.concurrency, retry)

    def get(self, video: Video) -> Thumbnail:
        """Fetch the best usable thumbnail of a video."""
        places = video.thumbnails
        if self.parameters.quality == "high" and "high" in places:
            places = {"high": places["high"]}
        error = BadThumbnailError("no thumbnail")
        for quality, place in places.items():
            try:
                return self._get(video.id, place, is_local=quality == "file")
            except BadThumbnailError as worse:
                error = worse
        return Thumbnail(video_id=video.id, dropped=str(error), may_come=error.may_come)

    def _get(self, video_id: str, place: str, is_local: bool) -> Thumbnail:
        data = self._local_file(place) if is_local else self._remote_file(place)
        picture = verify(data, self.parameters.max_megapixels)
        digest = hashlib.sha256(data).hexdigest()
        path = f"thumbnails/{digest[:2]}/{digest}.{ENDINGS[kind_of(data) or '']}"
        self.workspace.write_file(path, data)
        if not is_local:
            index = json.dumps({"url": place, "image": path, "sha256": digest})
            self.workspace.write(_index_path(place), index.encode())
        crop = letterbox(picture) if self.parameters.crop_letterbox else None
        return Thumbnail(video_id=video_id, image=path, crop=crop)

    def _remote_file(self, url: str) -> bytes:
        try:
            check_url(url, self.parameters.allowed_hosts)
        except RefusedHostError as refused:
            raise BadThumbnailError(str(refused)) from None
        stored = None if self.refresh else self._stored(url)
        return stored if stored is not None else self._download(url)

    def _local_file(self, place: str) -> bytes:
        """A file of this machine, or of the workspace if its path is relative."""
        file = Path(place) if Path(place).is_absolute() else self.workspace.place(place)
        try:
            if file.stat().st_size > MAX_BYTES:
                raise BadThumbnailError(TOO_LARGE)
            return file.read_bytes()
        except OSError:
            raise BadThumbnailError("file missing or unreadable") from None

    def _stored(self, url: str) -> bytes | None:
        """The picture that this URL gave before; None if it is not there or not intact."""
        try:
            index = json.loads(self.workspace.read(_index_path(url)))
            data = self.workspace.place(index["image"]).read_bytes()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return data if hashlib.sha256(data).hexdigest() == index["sha256"] else None

    def _download(self, url: str) -> bytes:
        hosts, limit = self.parameters.allowed_hosts, self.parameters.timeout_seconds
        deadline = time.monotonic() + limit
        try:
            with checked_get(self.session, url, hosts, limit) as answer:
                if not answer.ok:
                    passing = answer.status_code == 429 or answer.status_code >= 500
                    raise BadThumbnailError(f"HTTP {answer.status_code}", may_come=passing)
                data = read_body(answer, MAX_BYTES, deadline)
        except RefusedHostError as refused:
            raise BadThumbnailError(str(refused)) from None
        except TooLargeError:
            raise BadThumbnailError(TOO_LARGE) from None
        except TooSlowError:
            raise BadThumbnailError("download timed out", may_come=True) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            raise BadThumbnailError("download failed", may_come=True) from None
        self.downloaded.append(url)
        return data


def _index_path(url: str) -> str:
    return f"thumbnails/urls/{fingerprint(url)[:32]}.json"


def examples_of(
    pairs: Sequence[Pair], thumbnails: Sequence[Thumbnail], max_bad_share: float
) -> tuple[list[Example], dict[str, int]]:
    """Join pairs with their thumbnails; a pair without one is dropped.

    Returns:
        The examples in the order of the pairs, and reason → number of pairs dropped.

    Raises:
        TooManyBadThumbnailsError: more than `max_bad_share` of the pairs would be dropped.
    """
    found = {thumbnail.video_id: thumbnail for thumbnail in thumbnails}
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    for pair in pairs:
        thumbnail = found[pair.id]
        if thumbnail.image is None:
            dropped[f"thumbnail: {thumbnail.dropped}"] += 1
        else:
            image, crop = thumbnail.image, thumbnail.crop
            examples.append(Example(**pair.model_dump(), image=image, crop=crop))
    if dropped.total() > max_bad_share * len(pairs):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise TooManyBadThumbnailsError(
            f"{dropped.total()} of {len(pairs)} thumbnails are unusable ({reasons}), more than "
            f"thumbnails.max_bad_share={max_bad_share:g} allows. Look at the videos' thumbnails "
            "and the network, or raise thumbnails.max_bad_share."
        )
    return examples, dict(dropped)


@task(
    name="fetch-thumbnails",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4, ignore=["refresh"]),
)
def fetch_thumbnails(
    workspace: Workspace,
    videos: list[Video],
    parameters: ThumbnailsParameters,
    refresh: bool = False,
) -> ThumbnailBatch:
    """Fetch and verify the thumbnails of one batch of videos.

    Args:
        refresh: download again what is in the workspace.
    """
    store = ThumbnailStore(workspace, parameters, refresh)
    with store.session, ThreadPoolExecutor(parameters.concurrency) as pool:
        thumbnails = list(pool.map(store.get, videos))
    usable = sum(thumbnail.image is not None for thumbnail in thumbnails)
    get_run_logger().info(
        "Thumbnails: %d of %d usable, %d downloaded", usable, len(videos), len(store.downloaded)
    )
    return ThumbnailBatch(
        thumbnails=thumbnails, downloaded=len(store.downloaded), checked_at=datetime.now(UTC)
    )


@task(
    name="collect-examples",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def collect_examples(
    workspace: Workspace,
    pairs: Table,
    fetched: ThumbnailBatch,
    max_bad_share: float,
    min_rows: int,
) -> Table:
    """Join a table of `Pair` with the fetched thumbnails: a table of `Example`."""
    rows = workspace.read_table(pairs, Pair)
    examples, dropped = examples_of(rows, fetched.thumbnails, max_bad_share)
    check_sizes(examples, min_rows)
    return workspace.write_table("examples", examples, dropped)
