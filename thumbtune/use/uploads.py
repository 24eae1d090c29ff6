"""Pictures that people drop on the page: larger than a thumbnail may be, or as an AVIF or HEIC.

A HEIC, as iPhones take pictures, is read where `pillow-heif` is installed. No extra brings it, for
its wheels hold an encoder under the GPL.
"""

import io
from contextlib import suppress

from PIL import Image

from thumbtune.data.thumbnails import ENDINGS, MAX_BYTES, as_rgb, kind_of

MOST_MEGAPIXELS = 100.0
"""Decoded these are 300 MB."""

READ = ["JPEG", "PNG", "WEBP", "GIF", "AVIF"]
"""By Pillow's names."""

with suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    READ.append("HEIF")

SIDE = 2560  # pixels; the model looks at 224, a feed shows 1280 at most


def reduced(data: bytes, max_megapixels: float) -> bytes:
    """A picture that is as small as one of the channel's has to be, without a visible loss.

    What is small enough, and what is none, comes back as it is: who reads it says what is wrong.
    """
    kind = kind_of(data)
    if kind not in {*ENDINGS, "AVIF", "HEIC"}:
        return data
    try:
        with Image.open(io.BytesIO(data), formats=READ) as image:
            megapixels = image.width * image.height / 1e6
            fits = len(data) <= MAX_BYTES and megapixels <= max_megapixels
            if megapixels > MOST_MEGAPIXELS or (fits and kind in ENDINGS):
                return data
            return _as_png(image)
    except Exception:  # whatever a decoder makes of a stranger's bytes
        return data


def _as_png(image: Image.Image) -> bytes:
    image.draft("RGB", (SIDE, SIDE))  # a JPEG need not be decoded in full
    picture = as_rgb(image)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
