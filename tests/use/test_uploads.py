"""Pictures that people drop on the page."""

import io

import numpy as np
import pytest
from PIL import Image

from thumbtune.data.thumbnails import MAX_BYTES
from thumbtune.use.matching import PictureError, read_picture
from thumbtune.use.uploads import reduced


def file_of(kind: str, size: tuple[int, int], **options: int) -> bytes:
    column = np.linspace(0, 255, size[0], dtype=np.uint8)
    pixels = np.broadcast_to(column[None, :, None], (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def test_what_is_small_enough_stays_as_it_is() -> None:
    data = file_of("JPEG", (1280, 720))
    assert reduced(data, 20.0) is data


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_what_phones_and_browsers_save_is_taken(kind: str) -> None:
    data = file_of("HEIF" if kind == "HEIC" else kind, (640, 360))
    with pytest.raises(PictureError, match=kind):
        read_picture(data)
    picture = np.asarray(read_picture(reduced(data, 20.0)), int)
    assert picture.shape == (360, 640, 3)
    assert abs(picture[:, -1] - 255).max() < 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_too_many_pixels_are_made_fewer(kind: str) -> None:
    data = file_of(kind, (8000, 4500))
    with pytest.raises(PictureError, match="more than 20 megapixels"):
        read_picture(data)
    picture = read_picture(reduced(data, 20.0))
    assert 1280 <= picture.width <= 2560
    assert picture.width / picture.height == pytest.approx(16 / 9, rel=0.01)


def test_too_many_bytes_are_made_fewer() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2400, 3200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    assert len(file.getvalue()) > MAX_BYTES
    assert read_picture(reduced(file.getvalue(), 20.0)).size == (2560, 1920)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\xff\xd8\xff cut short", b"\0\0\0 ftypavif"]
)
def test_what_is_no_picture_is_left_to_who_reads_it(data: bytes) -> None:
    assert reduced(data, 20.0) is data
    with pytest.raises(PictureError):
        read_picture(data)
