"""Fetching, checking and keeping thumbnails, from a real HTTP server and from files."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tasks.negatives import Pair
from tasks.parameters import ThumbnailsParameters
from tasks.sources import Video
from tasks.thumbnails import (
    BadThumbnailError,
    Example,
    Thumbnail,
    ThumbnailBatch,
    ThumbnailStore,
    TooManyBadThumbnailsError,
    as_rgb,
    examples_of,
    fetch_thumbnails,
    letterbox,
    load_image,
    verify,
)
from tasks.workspace import Workspace


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


def test_a_dead_server_is_a_reason_and_not_a_crash(get: Callable[..., Thumbnail]) -> None:
    assert get("http://127.0.0.1:9/a.jpg").dropped == "download failed"


def test_a_slow_drip_is_cut_off_at_the_time_limit(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    def drip(request: Request) -> Response:
        import time

        def bytes_now_and_then() -> object:
            for _ in range(100):
                time.sleep(0.05)
                yield b"x"

        return Response(bytes_now_and_then())  # type: ignore[arg-type]

    httpserver.expect_request("/a.jpg").respond_with_handler(drip)
    thumbnail = get(httpserver.url_for("/a.jpg"), timeout_seconds=0.5)
    assert (thumbnail.dropped, thumbnail.may_come) == ("download timed out", True)


BAD = {
    "an HTML page": (b"<!doctype html><title>Sorry</title>", "not a JPEG, PNG, WebP or GIF"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a JPEG, PNG, WebP or GIF"),
    "another type": (encoded(picture(), "BMP"), "not a JPEG, PNG, WebP or GIF"),
    "an animated SVG": (b'<?xml version="1.0"?><svg><animate/></svg>', "not a JPEG, PNG, WebP or"),
    "nothing": (b"", "not a JPEG, PNG, WebP or GIF"),
    "truncated": (encoded(picture())[:-4000], "truncated or corrupt"),
    "too many pixels": (encoded(Image.new("L", (3000, 2000)), "PNG"), "more than 5 megapixels"),
    "a bomb": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "more than 5 megapixels"),
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


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> bytes:
    """As a camera held upright stores it: lying, with a note to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise
    return saved(picture().rotate(90, expand=True), "JPEG", exif=exif.tobytes(), quality=95)


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
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture(bars=45).rotate(90, expand=True)
    httpserver.expect_request("/a").respond_with_data(saved(lying, "JPEG", exif=exif.tobytes()))
    assert get(httpserver.url_for("/a")).crop == (0, 45, 480, 315)


KINDS = [encoded(picture(64, 48), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")]


@settings(max_examples=300)
@given(st.sampled_from(KINDS), st.data())
def test_damaged_bytes_are_a_picture_or_a_reason_and_never_a_crash(
    data: bytes, draw: st.DataObject
) -> None:
    damaged = bytearray(data[: draw.draw(st.integers(0, len(data)))])
    for place in draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=20)):
        if place < len(damaged):
            damaged[place] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(BadThumbnailError):
        assert as_rgb(verify(bytes(damaged), 5)).mode == "RGB"


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


def test_a_batch_downloads_side_by_side_and_counts(
    httpserver: HTTPServer, workspace: Workspace
) -> None:
    videos = []
    for n in range(20):
        httpserver.expect_request(f"/{n}.jpg").respond_with_data(encoded(picture(seed=n)))
        place = {"high": httpserver.url_for(f"/{n}.jpg")}
        videos.append(Video(id=str(n), title="t", thumbnails=place))
    batch = fetch_thumbnails(workspace, videos, ThumbnailsParameters())
    assert batch.downloaded == 20
    assert [thumbnail.video_id for thumbnail in batch.thumbnails] == [str(n) for n in range(20)]
    again = fetch_thumbnails.with_options(refresh_cache=True)(
        workspace, videos, ThumbnailsParameters()
    )
    assert again.downloaded == 0
    assert again.fingerprint == batch.fingerprint
