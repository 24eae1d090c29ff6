"""Fetch, verify and keep the thumbnails.

A picture is stored once, as it was fetched, under the hash of its bytes; a small index remembers
which URL gave it and when, so that a second run downloads nothing. After
`thumbnails.expiration_days` the URL is asked whether it has another one by now.
"""

import hashlib
import io
import re
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple, Self
from urllib.parse import urlsplit

import numpy as np
import requests
import urllib3
from PIL import ExifTags, Image
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict
from urllib3.util import Retry

from thumbtune.channel.downloads import (
    RefusedHostError,
    TooLargeError,
    TooSlowError,
    check_url,
    checked_get,
    checked_session,
    read_body,
)
from thumbtune.channel.listing import Video
from thumbtune.data.negatives import Pair
from thumbtune.errors import UserError
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.store.workspace import Workspace, fingerprint, sha256_of

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

ASK_AGAIN = timedelta(days=1)
"""After a stored picture's URL was asked in vain, it is left alone for so long."""

DARK = 24  # of 255; JPEG noise keeps a black bar from being exactly 0


Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels."""


class Example(Pair):
    """A pair whose thumbnail is in the workspace: one row to train or measure on."""

    image: str
    """File of the thumbnail as it was fetched, relative to the workspace."""
    crop: Box | None = None
    """Left, upper, right and lower pixel of the picture inside a letterbox; None for all of it."""

    @property
    def shares(self) -> list[str]:
        """The picture too, also where nobody looked at it: its file is named by its bytes' hash."""
        return [*super().shares, f"picture {self.image} {self.crop}"]


class Thumbnail(BaseModel):
    """What became of one video's thumbnail: a picture, or the reason why there is none."""

    model_config = ConfigDict(frozen=True)

    video_id: str
    image: str | None = None
    crop: Box | None = None
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

    due: AwareDatetime | None = None
    """When one of the URLs is to be asked again; None if all are files."""

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
        """Whether every picture is still as it was, and none may have changed or is worth a try."""
        if self.due and self.due <= datetime.now(UTC):
            return False
        images = [thumbnail.image for thumbnail in self.thumbnails if thumbnail.image]
        return (
            not any(thumbnail.may_come for thumbnail in self.thumbnails)
            and workspace.has_all(images)
            and all(
                is_intact(workspace, image)
                for image in workspace.touched_since(self.checked_at, images)
            )
        )


def _as_header(text: object) -> str:
    """What a server may be sent back as it came; nothing of what cannot be, in an edited index."""
    return text if isinstance(text, str) and re.fullmatch("[!-~][ -~]{0,999}", text) else ""


class Fetched(BaseModel):
    """What the index says of a URL."""

    model_config = ConfigDict(frozen=True)

    url: str = ""
    image: str
    """Relative to the workspace."""
    sha256: str
    at: AwareDatetime | None = None
    """When the URL last had this picture; None in an index of an earlier thumbtune."""
    asked: AwareDatetime | None = None
    """When it was asked in vain since."""
    etag: Annotated[str, BeforeValidator(_as_header)] = ""
    last_modified: Annotated[str, BeforeValidator(_as_header)] = ""

    @property
    def conditions(self) -> dict[str, str]:
        """Headers by which a server sends a picture only if it is another one."""
        conditions = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in conditions.items() if value}

    def due(self, age: timedelta, now: datetime) -> datetime:
        """When the URL is to be asked again; at once if the clock was ahead."""
        at, asked = self.at or now, self.asked or self.at or now
        if max(at, asked) > now:
            return now
        return max(at + age, asked + min(age, ASK_AGAIN)) if self.asked else at + age


class Stored(NamedTuple):
    """A picture of the workspace, and what the index says of it."""

    fetched: Fetched
    data: bytes


class BadThumbnailError(Exception):
    """A thumbnail is of no use; the message is the short reason that the funnel counts."""

    def __init__(self, reason: str, may_come: bool = False) -> None:
        super().__init__(reason)
        self.may_come = may_come


class DamagedThumbnailError(BadThumbnailError, UserError):
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


def letterbox(image: Image.Image) -> Box | None:
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


def load_image(workspace: Workspace, example: Example, least: int | None = None) -> Image.Image:
    """The thumbnail of an example as an RGB picture, without its letterbox.

    Args:
        least: as in `load_cropped`.

    Raises:
        OSError, DamagedThumbnailError: as `stored_picture`.
    """
    return load_cropped(stored_picture(workspace, example.image), example.crop, least)


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
        return sha256_of(file) == file.stem

    return workspace.passes(path, is_as_named)


def load_cropped(file: Path, crop: Box | None, least: int | None = None) -> Image.Image:
    """A picture as RGB, without its letterbox.

    Args:
        least: pixels that its shorter side has at least, if the whole picture has them. A JPEG is
            decoded at a half, a quarter or an eighth of its size, in half the time.

    Raises:
        OSError: there is no such file.
        BadThumbnailError: it was damaged after it was verified.
    """
    stored = io.BytesIO(file.read_bytes())
    try:
        with _opened(stored) as image:
            shrunk = _reduce(image, crop, least) if least else 1
            picture = as_rgb(image)
    except Exception:  # as in `verify`, which lets nothing pass that cannot be read here
        raise BadThumbnailError(f"{file.name}: {BROKEN}") from None
    if not crop:
        return picture
    left, upper, right, lower = (round(edge / shrunk) for edge in crop)
    return picture.crop((left, upper, right, lower))


def _reduce(image: Image.Image, crop: Box | None, least: int) -> int:
    """Have a JPEG decoded smaller, as long as what is left of it stays large enough; by how much.

    The discrete cosine transform, by which it is stored in blocks of 8 x 8, gives that for less.
    Where an edge of the crop would lie within a pixel, a dark line of the letterbox would stay.
    """
    left, upper, right, lower = crop or (0, 0, *image.size)
    shorter = min(right - left, lower - upper)
    even = [scale for scale in (1, 2, 4, 8) if not crop or all(e % scale == 0 for e in crop)]
    shrunk = max((scale for scale in even if shorter // scale >= least), default=1)
    width, height = image.size
    given = image.draft(None, (width // shrunk, height // shrunk)) if shrunk > 1 else None
    return shrunk if given else 1


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
        self.due: list[datetime] = []  # when to ask again, for each URL
        self.silent: set[str] = set()  # hosts that did not answer whether a picture has changed
        self.now = datetime.now(UTC)
        self.age = timedelta(days=parameters.expiration_days)
        retry = Retry(
            total=4,
            backoff_factor=0.3,
            backoff_jitter=0.3,
            status_forcelist=(429, 500, 502, 503, 504),
            retry_after_max=30,
            raise_on_status=False,
        )
        self.session = checked_session(parameters.concurrency, retry)
        self.once = checked_session(parameters.concurrency, Retry(0))

    def get(self, video: Video) -> Thumbnail:
        """Fetch the best usable thumbnail of a video."""
        places = video.thumbnails
        if self.parameters.quality == "high" and "high" in places:
            places = {"high": places["high"]}
        error = BadThumbnailError("no thumbnail")
        for quality, place in places.items():
            try:
                if quality == "file":
                    return self._keep(video.id, self._local_file(place))
                return self._get(video.id, place)
            except BadThumbnailError as worse:
                error = worse
        if "file" not in places:
            self.due.append(self.now + self.age)
        return Thumbnail(video_id=video.id, dropped=str(error), may_come=error.may_come)

    def _get(self, video_id: str, url: str) -> Thumbnail:
        """The picture that is stored of a URL; if there is none or it is old, what it has now.

        One that is stored stays if the URL has nothing better.
        """
        try:
            check_url(url, self.parameters.allowed_hosts)
        except RefusedHostError as refused:
            raise BadThumbnailError(str(refused)) from None
        stored = None if self.refresh else self._stored(url)
        if stored is None:
            return self._fetch(video_id, url)
        if stored.fetched.due(self.age, self.now) > self.now:
            self.due.append(stored.fetched.due(self.age, self.now))
            return self._keep(video_id, stored.data)
        try:
            return self._fetch(video_id, url, stored)
        except BadThumbnailError:
            self._note(stored.fetched.model_copy(update={"asked": self.now}))
            return self._keep(video_id, stored.data)

    def _fetch(self, video_id: str, url: str, stored: Stored | None = None) -> Thumbnail:
        """Ask a URL, keep its picture and note when it came."""
        data, headers = self._ask(url, stored)
        thumbnail = self._keep(video_id, data)
        before = stored.fetched if stored and data is stored.data else None  # 304 may tell neither
        self._note(
            Fetched(
                url=url,
                image=thumbnail.image or "",
                sha256=hashlib.sha256(data).hexdigest(),
                at=self.now,
                etag=headers.get("ETag") or (before.etag if before else ""),
                last_modified=headers.get("Last-Modified")
                or (before.last_modified if before else ""),
            )
        )
        return thumbnail

    def _note(self, fetched: Fetched) -> None:
        self.workspace.write(_index_path(fetched.url), fetched.model_dump_json().encode())
        self.due.append(fetched.due(self.age, self.now))

    def _keep(self, video_id: str, data: bytes) -> Thumbnail:
        """Check a picture and store it."""
        picture = verify(data, self.parameters.max_megapixels)
        digest = hashlib.sha256(data).hexdigest()
        path = f"thumbnails/{digest[:2]}/{digest}.{ENDINGS[kind_of(data) or '']}"
        self.workspace.write_file(path, data)
        crop = letterbox(picture) if self.parameters.crop_letterbox else None
        return Thumbnail(video_id=video_id, image=path, crop=crop)

    def _local_file(self, place: str) -> bytes:
        """A file of this machine, or of the workspace if its path is relative."""
        file = Path(place) if Path(place).is_absolute() else self.workspace.place(place)
        try:
            if file.stat().st_size > MAX_BYTES:
                raise BadThumbnailError(TOO_LARGE)
            return file.read_bytes()
        except OSError:
            raise BadThumbnailError("file missing or unreadable") from None

    def _stored(self, url: str) -> Stored | None:
        """The picture that this URL gave before; None if it is not there or not intact."""
        try:
            fetched = Fetched.model_validate_json(self.workspace.read(_index_path(url)))
            data = self.workspace.place(fetched.image).read_bytes()
            if fetched.at is None:
                fetched = self._dated(url, fetched)
        except (OSError, ValueError):
            return None
        whole = hashlib.sha256(data).hexdigest() == fetched.sha256
        return Stored(fetched, data) if whole else None

    def _dated(self, url: str, fetched: Fetched) -> Fetched:
        """What an earlier thumbtune noted, which is as old as its file."""
        path = _index_path(url)
        at = datetime.fromtimestamp(self.workspace.place(path).stat().st_mtime, UTC)
        fetched = fetched.model_copy(update={"url": url, "at": at})
        self.workspace.write(path, fetched.model_dump_json().encode())
        return fetched

    def _ask(self, url: str, stored: Stored | None) -> tuple[bytes, Mapping[str, str]]:
        """The picture that a URL has now, and the headers of the answer.

        Args:
            stored: what it had; a host that does not answer is not asked for long then.
        """
        host = urlsplit(url).hostname or ""
        if stored and host in self.silent:
            raise BadThumbnailError("download failed")
        try:
            return self._download(url, stored)
        except RefusedHostError as refused:
            raise BadThumbnailError(str(refused)) from None
        except TooLargeError:
            raise BadThumbnailError(TOO_LARGE) from None
        except TooSlowError:
            raise BadThumbnailError("download timed out", may_come=True) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            if stored:
                self.silent.add(host)
            raise BadThumbnailError("download failed", may_come=True) from None

    def _download(self, url: str, stored: Stored | None) -> tuple[bytes, Mapping[str, str]]:
        hosts, limit = self.parameters.allowed_hosts, self.parameters.timeout_seconds
        deadline = time.monotonic() + limit
        session = self.once if stored else self.session
        conditions = stored.fetched.conditions if stored else {}
        with checked_get(session, url, hosts, limit, conditions) as answer:
            if stored and answer.status_code == requests.codes.not_modified:
                return stored.data, answer.headers
            if not answer.ok:
                passing = answer.status_code == 429 or answer.status_code >= 500
                raise BadThumbnailError(f"HTTP {answer.status_code}", may_come=passing)
            data = read_body(answer, MAX_BYTES, deadline)
        self.downloaded.append(url)
        return data, answer.headers


def count_stored(workspace: Workspace, videos: Sequence[Video]) -> int:
    """How many videos have a thumbnail that need not be fetched, unless it is due.

    Only the URLs of these videos are looked for: thousands of channels may share a workspace.
    """
    remote = [video.thumbnails for video in videos if "file" not in video.thumbnails]
    stored = len(videos) - len(remote)
    waiting = [[_index_path(url) for url in places.values()] for places in remote if places]
    while waiting:  # mostly the first URL of each is there, or none
        missing = workspace.missing([paths[0] for paths in waiting])
        stored += sum(paths[0] not in missing for paths in waiting)
        waiting = [paths[1:] for paths in waiting if paths[0] in missing and paths[1:]]
    return stored


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
