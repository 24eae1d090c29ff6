"""Fetching, checking and keeping thumbnails, from a real HTTP server and from files."""

import hashlib
import io
import json
import os
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin
from prefect import flow
from pytest_httpserver import HTTPServer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from werkzeug import Request, Response

from thumbtune.channel.listing import Video
from thumbtune.data.negatives import Pair
from thumbtune.data.thumbnails import (
    BadThumbnailError,
    Example,
    Fetched,
    Thumbnail,
    ThumbnailBatch,
    ThumbnailStore,
    TooManyBadThumbnailsError,
    as_rgb,
    examples_of,
    letterbox,
    load_cropped,
    load_image,
    verify,
)
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import Stages
from thumbtune.tasks.fetch_thumbnails import fetch_thumbnails


def picture(width: int = 480, height: int = 360, bars: int = 0, seed: int = 0) -> Image.Image:
    """A colourful picture, with black bars above and below."""
    colours = np.random.default_rng(seed).integers(60, 255, (6, 8, 3), dtype=np.uint8)
    scene = Image.fromarray(colours).resize((width, height - 2 * bars), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (width, height))
    image.paste(scene, (0, bars))
    return image


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
def get(workspace: Workspace) -> Callable[..., Thumbnail]:
    def get(*places: str, refresh: bool = False, **parameters: object) -> Thumbnail:
        qualities = ["maxres", "high", "medium"] if "://" in places[0] else ["file"]
        video = Video(id="v", title="t", thumbnails=dict(zip(qualities, places, strict=False)))
        settings = ThumbnailsParameters.model_validate(parameters)
        return ThumbnailStore(workspace, settings, refresh).get(video)

    return get


def test_a_good_picture_is_kept_byte_for_byte(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    data = encoded(picture())
    httpserver.expect_request("/a.jpg").respond_with_data(data)
    thumbnail = get(httpserver.url_for("/a.jpg"))
    assert thumbnail.dropped is None
    assert (workspace.root / str(thumbnail.image)).read_bytes() == data


def test_a_second_run_downloads_nothing(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_ordered_request("/a.jpg").respond_with_data(encoded(picture()))
    first = get(httpserver.url_for("/a.jpg"))
    assert get(httpserver.url_for("/a.jpg")) == first
    assert len(httpserver.log) == 1


def test_refresh_downloads_again(httpserver: HTTPServer, get: Callable[..., Thumbnail]) -> None:
    for seed in (0, 1):
        httpserver.expect_ordered_request("/a.jpg").respond_with_data(encoded(picture(seed=seed)))
    first = get(httpserver.url_for("/a.jpg"))
    assert get(httpserver.url_for("/a.jpg"), refresh=True).image != first.image


def test_a_stored_picture_that_was_damaged_is_fetched_again(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    data = encoded(picture())
    httpserver.expect_request("/a.jpg").respond_with_data(data)
    stored = workspace.root / str(get(httpserver.url_for("/a.jpg")).image)
    stored.write_bytes(data[:100])
    get(httpserver.url_for("/a.jpg"))
    assert stored.read_bytes() == data


def test_an_index_that_was_changed_leads_to_no_other_file(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data(encoded(picture()))
    first = get(httpserver.url_for("/a.jpg"))
    other = encoded(picture(seed=1))
    (workspace.root.parent / "mine.jpg").write_bytes(other)
    [index] = (workspace.root / "thumbnails" / "urls").iterdir()
    changed = {"image": "../mine.jpg", "sha256": hashlib.sha256(other).hexdigest()}
    index.write_text(json.dumps(changed))
    assert get(httpserver.url_for("/a.jpg")) == first


class Gallery:
    """A server of one picture, which answers conditional requests, and what it was asked."""

    def __init__(self, http: HTTPServer, validators: Sequence[str]) -> None:
        self.url = http.url_for("/a.jpg")
        self.data = encoded(picture())
        self.status = 200
        self.validators = validators
        self.sent: list[int] = []
        http.expect_request("/a.jpg").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        answer = Response(self.data, self.status, content_type="image/jpeg")
        if self.status == 200 and "etag" in self.validators:
            answer.add_etag()
        if self.status == 200 and "last_modified" in self.validators:
            answer.last_modified = datetime(2026, 1, 1 + zlib.crc32(self.data) % 28, tzinfo=UTC)
        answer.make_conditional(request)
        self.sent.append(answer.status_code)
        return answer


@pytest.fixture
def gallery(httpserver: HTTPServer, request: pytest.FixtureRequest) -> Gallery:
    return Gallery(httpserver, getattr(request, "param", ["etag", "last_modified"]))


def grow_old(workspace: Workspace, **age: float) -> None:
    """What the index says of its URLs was noted so long ago."""
    for file in (workspace.root / "thumbnails" / "urls").iterdir():
        fetched = Fetched.model_validate_json(file.read_bytes())
        assert fetched.at
        times = {"at": fetched.at, **({"asked": fetched.asked} if fetched.asked else {})}
        update = {name: time - timedelta(**age) for name, time in times.items()}
        file.write_text(fetched.model_copy(update=update).model_dump_json())


@pytest.mark.parametrize("gallery", [["etag"], ["last_modified"]], indirect=True)
def test_an_old_picture_is_asked_for_and_sent_only_if_it_is_another_one(
    gallery: Gallery, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    first = get(gallery.url)
    grow_old(workspace, days=29)
    assert (get(gallery.url), gallery.sent) == (first, [200])
    grow_old(workspace, days=1)
    for _ in range(2):  # the second time it is not old
        assert (get(gallery.url), gallery.sent) == (first, [200, 304])
    grow_old(workspace, days=30)
    assert (get(gallery.url), gallery.sent) == (first, [200, 304, 304])
    gallery.data = encoded(picture(seed=1))
    grow_old(workspace, days=30)
    second = get(gallery.url)
    assert (workspace.root / str(second.image)).read_bytes() == gallery.data
    assert get(gallery.url) == second
    assert gallery.sent == [200, 304, 304, 200]


@pytest.mark.parametrize("gallery", [[]], indirect=True)
def test_a_server_without_validators_sends_an_old_picture_anew(
    gallery: Gallery, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    first = get(gallery.url)
    grow_old(workspace, days=30)
    gallery.data = encoded(picture(seed=1))
    assert get(gallery.url).image != first.image
    assert gallery.sent == [200, 200]


def test_zero_days_ask_in_every_run(gallery: Gallery, get: Callable[..., Thumbnail]) -> None:
    assert get(gallery.url) == get(gallery.url, expiration_days=0)
    assert gallery.sent == [200, 304]


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (404, b""),
        (410, b""),
        (429, b""),
        (503, b""),
        (200, b"<html>Sorry</html>"),
        (200, encoded(picture())[:-4000]),
        (200, encoded(Image.new("RGB", (120, 90), "#ccc"))),
    ],
)
def test_what_is_stored_stays_where_a_url_has_nothing_better_and_is_left_alone_for_a_day(
    gallery: Gallery,
    workspace: Workspace,
    get: Callable[..., Thumbnail],
    status: int,
    data: bytes,
) -> None:
    first, good = get(gallery.url), gallery.data
    grow_old(workspace, days=30)
    gallery.status, gallery.data = status, data
    for _ in range(2):
        assert get(gallery.url) == first
    assert len(gallery.sent) == 2
    grow_old(workspace, days=1)
    gallery.status, gallery.data = 200, good
    assert get(gallery.url) == first
    assert gallery.sent[2:] == [304]


def videos_at(server: HTTPServer, count: int) -> list[Video]:
    """Videos whose thumbnails a server has."""
    videos = []
    for n in range(count):
        server.expect_request(f"/{n}.jpg").respond_with_data(encoded(picture(seed=n)))
        place = {"high": server.url_for(f"/{n}.jpg")}
        videos.append(Video(id=str(n), title="t", thumbnails=place))
    return videos


def test_a_host_that_does_not_answer_is_not_asked_about_each_picture(
    workspace: Workspace, httpserver: HTTPServer
) -> None:
    videos = videos_at(httpserver, 30)
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    first = [store.get(video) for video in videos]
    grow_old(workspace, days=30)
    httpserver.clear()
    calls = 0

    def hang_up(request: Request) -> Response:
        nonlocal calls
        calls += 1
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return Response()

    httpserver.expect_request(re.compile(".*")).respond_with_handler(hang_up)
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    assert [store.get(video) for video in videos] == first
    assert calls == 1


def test_an_index_without_times_is_as_old_as_its_file(
    gallery: Gallery, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    first = get(gallery.url)
    [index] = (workspace.root / "thumbnails" / "urls").iterdir()
    noted = Fetched.model_validate_json(index.read_bytes())

    def as_it_was(age: timedelta) -> None:
        index.write_text(noted.model_dump_json(include={"url", "image", "sha256"}))
        os.utime(index, times=(0, (datetime.now(UTC) - age).timestamp()))

    as_it_was(timedelta(days=1))
    assert (get(gallery.url), gallery.sent) == (first, [200])
    grow_old(workspace, days=29)  # its file is new, but it has a time of its own now
    assert (get(gallery.url), gallery.sent) == (first, [200, 200])
    as_it_was(timedelta(days=30))
    assert (get(gallery.url), gallery.sent) == (first, [200, 200, 200])


@given(
    at=st.integers(-1000, 0),
    asked=st.none() | st.integers(-1000, 0),
    age=st.floats(0, 36_500),
)
def test_a_url_is_asked_in_time_and_not_at_once_again(
    at: int, asked: int | None, age: float
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    times = [now + timedelta(hours=hours) for hours in (at, *([] if asked is None else [asked]))]
    last = times[1] if asked is not None else None
    fetched = Fetched(image="i", sha256="s", at=times[0], asked=last)
    due = fetched.due(timedelta(days=age), now)
    assert times[0] + timedelta(days=age) <= due
    assert due <= max(times) + timedelta(days=max(age, 1))
    ahead = fetched.model_copy(update={"at": now + timedelta(hours=1)})
    assert ahead.due(timedelta(days=age), now) == now


@pytest.mark.parametrize("etag", ["‮", "a\r\nX: y", " ", "\udcff", 7, None, "x" * 5000])
def test_an_index_that_was_edited_sends_no_odd_header(
    gallery: Gallery, workspace: Workspace, get: Callable[..., Thumbnail], etag: object
) -> None:
    first = get(gallery.url)
    [index] = (workspace.root / "thumbnails" / "urls").iterdir()
    noted = {**json.loads(index.read_text()), "etag": etag, "at": "2026-01-01T00:00:00Z"}
    index.write_text(json.dumps(noted))
    assert (get(gallery.url), len(gallery.sent)) == (first, 2)


@pytest.mark.usefixtures("prefect_harness")
def test_a_batch_that_prefect_knows_is_asked_again_when_a_picture_is_old(
    gallery: Gallery, workspace: Workspace
) -> None:
    video = Video(id="v", title="t", thumbnails={"high": gallery.url})

    @flow
    def fetch() -> tuple[ThumbnailBatch, int]:
        stages = Stages(workspace, refresh=False)
        parameters = ThumbnailsParameters(expiration_days=2 / 86_400)
        batch: ThumbnailBatch = stages.run(fetch_thumbnails, workspace, [video], parameters)
        return batch, stages.cached.total()

    first, _ = fetch()
    again, cached = fetch()
    if cached:  # else a slow machine took longer than the two seconds
        assert (again, gallery.sent) == (first, [200])
    gallery.data = encoded(picture(seed=1))
    assert again.due
    time.sleep(max(0, (again.due - datetime.now(UTC)).total_seconds()))
    later, cached = fetch()
    assert (cached, gallery.sent[-1]) == (0, 200)
    assert later.fingerprint != first.fingerprint


@pytest.mark.usefixtures("prefect_harness")
def test_a_video_without_a_picture_is_asked_again_when_it_is_time(
    httpserver: HTTPServer, workspace: Workspace, tmp_path: Path
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data("", status=404)
    place = {"high": httpserver.url_for("/a.jpg")}
    (tmp_path / "b.jpg").write_bytes(encoded(picture()))
    there = {"file": str(tmp_path / "b.jpg")}
    videos = [Video(id=str(n), title="t", thumbnails=p) for n, p in enumerate((place, there))]
    before = datetime.now(UTC)
    batch = fetch_thumbnails(workspace, videos, ThumbnailsParameters())
    assert batch.due
    assert before <= batch.due - timedelta(days=30) <= datetime.now(UTC)
    assert fetch_thumbnails(workspace, videos[1:], ThumbnailsParameters()).due is None


def test_the_best_quality_that_is_there_is_taken(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_request("/maxres.jpg").respond_with_data("", status=404)
    httpserver.expect_request("/high.jpg").respond_with_data(encoded(picture(bars=45)))
    thumbnail = get(httpserver.url_for("/maxres.jpg"), httpserver.url_for("/high.jpg"))
    assert thumbnail.crop == (0, 45, 480, 315)


def test_quality_high_is_the_articles_480x360(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_request("/high.jpg").respond_with_data(encoded(picture()))
    places = httpserver.url_for("/maxres.jpg"), httpserver.url_for("/high.jpg")
    assert get(*places, quality="high").image
    assert [request.path for request, _ in httpserver.log] == ["/high.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_error_is_retried(
    httpserver: HTTPServer, get: Callable[..., Thumbnail], status: int
) -> None:
    for _ in range(2):
        httpserver.expect_ordered_request("/a.jpg").respond_with_data(
            "", status=status, headers={"Retry-After": "0"}
        )
    httpserver.expect_ordered_request("/a.jpg").respond_with_data(encoded(picture()))
    assert get(httpserver.url_for("/a.jpg")).image
    assert len(httpserver.log) == 3


@pytest.mark.slow
def test_an_error_that_stays_is_dropped_but_tried_again_by_the_next_run(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data("", 503, headers={"Retry-After": "0"})
    thumbnail = get(httpserver.url_for("/a.jpg"))
    assert (thumbnail.dropped, thumbnail.may_come) == ("HTTP 503", True)
    assert not ThumbnailBatch(thumbnails=[thumbnail], downloaded=0).is_whole(workspace)


def test_a_missing_thumbnail_is_asked_for_once(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data("", status=404)
    thumbnail = get(httpserver.url_for("/a.jpg"))
    assert (thumbnail.dropped, thumbnail.may_come) == ("HTTP 404", False)
    assert len(httpserver.log) == 1
    assert ThumbnailBatch(thumbnails=[thumbnail], downloaded=0).is_whole(workspace)


@pytest.mark.slow
def test_a_dead_server_is_a_reason_and_not_a_crash(get: Callable[..., Thumbnail]) -> None:
    assert get("http://127.0.0.1:9/a.jpg").dropped == "download failed"


def test_a_slow_drip_is_cut_off_at_the_time_limit(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    def drip(request: Request) -> Response:
        def bytes_now_and_then() -> object:
            for _ in range(100):
                time.sleep(0.05)
                yield b"x"

        return Response(bytes_now_and_then())  # type: ignore[arg-type]

    httpserver.expect_request("/a.jpg").respond_with_handler(drip)
    thumbnail = get(httpserver.url_for("/a.jpg"), timeout_seconds=0.5)
    assert (thumbnail.dropped, thumbnail.may_come) == ("download timed out", True)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_much_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    for n in range(70):
        text.add_text(f"key {n}", "y" * 1_000_000, zip=True)
    return saved(picture(), "PNG", pnginfo=text)


BAD = {
    "an HTML page": (b"<!doctype html><title>Sorry</title>", "not a JPEG, PNG, WebP or GIF"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a JPEG, PNG, WebP or GIF"),
    "another type": (encoded(picture(), "BMP"), "not a JPEG, PNG, WebP or GIF"),
    "an animated SVG": (b'<?xml version="1.0"?><svg><animate/></svg>', "not a JPEG, PNG, WebP or"),
    "nothing": (b"", "not a JPEG, PNG, WebP or GIF"),
    "truncated": (encoded(picture())[:-4000], "truncated or corrupt"),
    "too many pixels": (encoded(Image.new("L", (3000, 2000)), "PNG"), "more than 5 megapixels"),
    "a bomb": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "more than 5 megapixels"),
    "AVIF": (encoded(picture(), "AVIF"), "not a JPEG, PNG, WebP or GIF picture but AVIF"),
    "HEIC": (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "not a JPEG, PNG, WebP or GIF picture but HEIC",
    ),
    "TIFF": (encoded(picture(), "TIFF"), "not a JPEG, PNG, WebP or GIF picture but TIFF"),
    "PDF": (encoded(picture(), "PDF"), "not a JPEG, PNG, WebP or GIF picture but PDF"),
    "a video": (b"\0\0\0\x18ftypisom\0\0\0\0", "not a JPEG, PNG, WebP or GIF picture but a video"),
    "a long row": (encoded(Image.new("L", (60_000, 40)), "PNG"), "longer than 16384 pixels"),
    "a tall column": (encoded(Image.new("L", (40, 3_000)), "PNG"), "more than 10 times as long"),
    "much text": (with_much_text(), "truncated or corrupt"),
    "tiny": (encoded(picture(20, 20)), "smaller than 32 pixels"),
    "YouTube's placeholder": (encoded(Image.new("RGB", (120, 90), "#ccc")), "grey placeholder"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_picture_is_dropped_with_its_reason(
    httpserver: HTTPServer, get: Callable[..., Thumbnail], what: str
) -> None:
    data, reason = BAD[what]
    httpserver.expect_request("/a.jpg").respond_with_data(data)
    thumbnail = get(httpserver.url_for("/a.jpg"), max_megapixels=5)
    assert thumbnail.image is None
    assert str(thumbnail.dropped).startswith(reason)


def turned() -> bytes:
    """As a camera held upright stores it: lying, with a note to turn it."""
    return saved(picture().rotate(90, expand=True), "JPEG", exif=turned_exif(), quality=95)


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise
    return exif.tobytes()


def see_through(kind: str) -> Image.Image:
    """The left half transparent, with black behind it."""
    image = picture().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 240, 360))
    return image if kind == "RGBA" else image.quantize(64)


def on_white() -> Image.Image:
    image = picture()
    image.paste("white", (0, 0, 240, 360))
    return image


ANIMATION = {"save_all": True, "append_images": [picture(seed=1)]}
UNUSUAL = {
    "an animated GIF": (saved(picture(), "GIF", **ANIMATION), picture()),
    "an animated WebP": (saved(picture(), "WEBP", lossless=True, **ANIMATION), picture()),
    "a CMYK JPEG": (saved(picture().convert("CMYK"), "JPEG", quality=95), picture()),
    "a grey 16-bit PNG": (
        saved(Image.fromarray(np.asarray(picture().convert("L")) * np.uint16(257)), "PNG"),
        picture().convert("L"),
    ),
    "a transparent PNG": (saved(see_through("RGBA"), "PNG"), on_white()),
    "a palette with transparency": (saved(see_through("P"), "PNG"), on_white()),
    "a picture turned by EXIF": (turned(), picture()),
    "a JPEG with a second picture (MPO)": (saved(picture(), "MPO", **ANIMATION), picture()),
    "an animated PNG": (saved(picture(), "PNG", **ANIMATION), picture()),
    "EXIF that is cut short": (saved(picture(), "JPEG", exif=turned_exif()[:16]), picture()),
    "EXIF of nonsense": (saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff"), picture()),
    "a broken colour profile": (saved(picture(), "JPEG", icc_profile=b"junk"), picture()),
    "a PNG of one bit": (
        saved(picture().convert("1"), "PNG", transparency=0),
        Image.new("L", (480, 360), "white"),
    ),
    "a PNG with one clear colour": (saved(picture(), "PNG", transparency=(1, 2, 3)), picture()),
    "grey with transparency": (
        saved(see_through("RGBA").convert("LA"), "PNG"),
        on_white().convert("L"),
    ),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_an_unusual_picture_is_read_as_a_browser_shows_it(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail], what: str
) -> None:
    data, shown = UNUSUAL[what]
    httpserver.expect_request("/a").respond_with_data(data)
    thumbnail = get(httpserver.url_for("/a"))
    example = Example(**pair(0).model_dump(), image=str(thumbnail.image), crop=thumbnail.crop)
    read = np.asarray(load_image(workspace, example), np.int16)
    assert np.abs(read - np.asarray(shown.convert("RGB"), np.int16)).mean() < 8


def test_a_letterbox_is_cropped_in_the_upright_picture(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    lying = picture(bars=45).rotate(90, expand=True)
    httpserver.expect_request("/a").respond_with_data(saved(lying, "JPEG", exif=turned_exif()))
    assert get(httpserver.url_for("/a")).crop == (0, 45, 480, 315)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_once_however_often_it_is_read(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(64, 48), "PNG", exif=exif.tobytes())
    once = verify(data, 5)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert once.tobytes() == as_rgb(once).tobytes() == shown.tobytes()


def test_mpo_is_kept_as_jpeg(tmp_path: Path, get: Callable[..., Thumbnail]) -> None:
    (tmp_path / "phone.jpg").write_bytes(saved(picture(), "MPO", **ANIMATION))
    assert str(get(str(tmp_path / "phone.jpg")).image).endswith(".jpg")


def test_the_type_is_that_of_the_bytes_whatever_the_name_says(
    tmp_path: Path, get: Callable[..., Thumbnail]
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    assert str(get(str(tmp_path / "a.png")).image).endswith(".jpg")


def test_a_very_long_picture_is_refused_before_it_is_decoded() -> None:
    head = struct.pack(">IIBBBBB", 600_000, 32, 8, 2, 0, 0, 0)  # 19 megapixels, and no pixel
    check = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    data = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + head + check + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    with pytest.raises(BadThumbnailError, match="longer than 16384 pixels"):
        verify(data, 20)


KINDS = [saved(picture(64, 48), kind, quality=60) for kind in ("JPEG", "PNG", "WEBP", "GIF")]
KINDS += [
    saved(picture(64, 48), kind, save_all=True, append_images=[picture(64, 48, seed=1)])
    for kind in ("MPO", "GIF", "WEBP", "PNG")
]
KINDS += [saved(picture(64, 48), "JPEG", exif=turned_exif(), icc_profile=b"x" * 50)]
KINDS += [saved(picture(64, 48).quantize(8), "PNG", transparency=bytes(range(8)))]
CLIP = CLIPImageProcessorPil()


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.data())
def test_damaged_bytes_are_a_reason_or_a_picture_that_every_later_step_can_read(
    tmp_path: Path, data: bytes, draw: st.DataObject
) -> None:
    damaged = bytearray(data[: draw.draw(st.just(len(data)) | st.integers(0, len(data)))])
    for place in draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=20)):
        if place < len(damaged):
            damaged[place] = draw.draw(st.integers(0, 255))
    try:
        checked = verify(bytes(damaged), 5)
    except BadThumbnailError:
        return
    (tmp_path / "stored").write_bytes(damaged)
    read = load_cropped(tmp_path / "stored", letterbox(checked))
    assert (read.mode, as_rgb(read).tobytes()) == ("RGB", read.tobytes())
    assert CLIP(read, return_tensors="pt")["pixel_values"].shape == (1, 3, 224, 224)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_picture_that_was_damaged_in_the_workspace_is_told_by_name(
    tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "stored"
    for damaged in (b"", b"nothing", encoded(picture(), kind)[:200]):
        file.write_bytes(damaged)
        with pytest.raises(BadThumbnailError, match="stored: truncated or corrupt"):
            load_cropped(file, None)
    with pytest.raises(FileNotFoundError):
        load_cropped(tmp_path / "gone", None)


def test_a_colourful_picture_of_the_placeholders_size_is_kept() -> None:
    assert verify(encoded(picture(120, 90)), 5).size == (120, 90)


def test_a_local_file_is_copied_into_the_workspace(
    tmp_path: Path, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(), "PNG"))
    thumbnail = get(str(tmp_path / "a.png"))
    assert (workspace.root / str(thumbnail.image)).suffix == ".png"
    assert get(str(tmp_path / "gone.png")).dropped == "file missing or unreadable"


@pytest.mark.parametrize("size", [(480, 360, 45), (640, 480, 60), (120, 90, 11)])
def test_a_letterbox_is_cropped_to_16_by_9(size: tuple[int, int, int]) -> None:
    width, height, bars = size
    image = verify(encoded(picture(width, height, bars)), 5)
    assert letterbox(image) == (0, bars, width, height - bars)


def test_only_black_bars_are_cropped() -> None:
    assert letterbox(picture()) is None  # a full 4:3 picture
    assert letterbox(picture(1280, 720)) is None
    assert letterbox(picture(1280, 720, bars=90)) is None  # dark by intent: 16:9 has no letterbox


def test_the_letterbox_stays_when_asked(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data(encoded(picture(bars=45)))
    assert get(httpserver.url_for("/a.jpg"), crop_letterbox=False).crop is None


def pair(number: int) -> Pair:
    return Pair(id=str(number), title="t", thumbnails={}, split="train", title_neg=None)


def test_a_loaded_image_is_cropped_rgb(workspace: Workspace) -> None:
    (workspace.root / "a.png").write_bytes(encoded(picture(bars=45).convert("P"), "PNG"))
    example = Example(**pair(0).model_dump(), image="a.png", crop=(0, 45, 480, 315))
    image = load_image(workspace, example)
    assert (image.size, image.mode) == ((480, 270), "RGB")


def test_a_bad_thumbnail_drops_its_pair_with_the_reason() -> None:
    thumbnails = [Thumbnail(video_id=str(n), image=f"{n}.jpg") for n in range(19)]
    thumbnails.append(Thumbnail(video_id="19", dropped="HTTP 404"))
    examples, dropped = examples_of([pair(n) for n in range(20)], thumbnails, max_bad_share=0.1)
    assert [example.image for example in examples] == [f"{n}.jpg" for n in range(19)]
    assert dropped == {"thumbnail: HTTP 404": 1}


def test_too_large_a_share_of_bad_thumbnails_stops_the_run_and_tells_why() -> None:
    thumbnails = [Thumbnail(video_id=str(n), dropped="HTTP 404") for n in range(4)]
    with pytest.raises(TooManyBadThumbnailsError, match=r"4 of 4 .*4 thumbnail: HTTP 404.*max_bad"):
        examples_of([pair(n) for n in range(4)], thumbnails, max_bad_share=0.99)


@pytest.mark.usefixtures("prefect_harness")
def test_a_batch_downloads_side_by_side_and_counts(
    httpserver: HTTPServer, workspace: Workspace
) -> None:
    videos = videos_at(httpserver, 20)
    batch = fetch_thumbnails(workspace, videos, ThumbnailsParameters())
    assert batch.downloaded == 20
    assert [thumbnail.video_id for thumbnail in batch.thumbnails] == [str(n) for n in range(20)]
    again = fetch_thumbnails.with_options(refresh_cache=True)(
        workspace, videos, ThumbnailsParameters()
    )
    assert again.downloaded == 0
    assert again.fingerprint == batch.fingerprint
