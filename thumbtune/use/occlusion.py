"""What drives a fit: parts of the picture and words of the title without which it is another.

Occlusion (Zeiler & Fergus 2014, arXiv:1311.2901): each part is covered in turn, and the change of
the cosine is its share. What the model never sees, such as the sides of a wide picture that CLIP
cuts off, changes nothing.
"""

import io
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thumbtune.data.thumbnails import as_rgb
from thumbtune.use.matching import Matcher

COLUMNS, ROWS = 8, 5
"""Parts of a picture: with ViT-B/32 all 28 windows take 2.5 s on two cores."""
COARSE = 4, 3
"""Parts for a larger model: with ViT-L/14 the fine ones would take 41 s there."""
PATIENCE = 8.0  # seconds, for all windows
MOST_WORDS = 30  # of a title; YouTube's 100 characters have some 20
SHOWN = (640, 360)  # pixels
DARK = 0.25
"""Brightness of the parts that change nothing."""


class Word(NamedTuple):
    """A word of a title."""

    text: str
    drop: float
    """By how much the cosine falls without it."""
    heat: float
    """The same, 0 to 1: of the most that a word makes it fall."""


class Drivers(NamedTuple):
    """What a fit rests on."""

    cosine: float
    parts: NDArray[np.float32]
    """By how much the cosine falls where a part is covered, shape (rows, columns)."""
    words: list[Word]

    @property
    def strongest_part(self) -> float:
        """The most that a covered part makes it fall."""
        return float(self.parts.max())

    @property
    def strongest_word(self) -> Word | None:
        """The word without which it falls most; None if it falls without none."""
        found = max(self.words, key=lambda word: word.drop, default=None)
        return found if found and found.drop > 0 else None


def drivers(
    matcher: Matcher, image: Image.Image, title: str, patience: float = PATIENCE
) -> Drivers:
    """Find what makes a title and a picture fit.

    Args:
        patience: seconds; where a model is so slow that fine parts take longer, they are coarse.
    """
    words = title.split()[:MOST_WORDS]
    shorter = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    titles = [title, *(shorter if len(words) > 1 else [])]
    vectors = matcher.embed_titles(titles)
    started = time.perf_counter()
    whole = matcher.embed_images([image])[0]
    windows = (COLUMNS - 1) * (ROWS - 1)
    fine = (time.perf_counter() - started) * windows <= patience
    columns, rows = (COLUMNS, ROWS) if fine else COARSE
    covered = matcher.embed_images(_covered(as_rgb(image), columns, rows))
    cosine = float(whole @ vectors[0])
    drops_of_windows = (cosine - covered @ vectors[0]).reshape(rows - 1, columns - 1)
    drops = (cosine - vectors[1:] @ whole).tolist()
    most = max([*drops, 1e-9])
    told = [
        Word(text, drop, max(0.0, drop / most)) for text, drop in zip(words, drops, strict=False)
    ]
    return Drivers(cosine, _of_parts(drops_of_windows), told)


def _covered(image: Image.Image, columns: int, rows: int) -> list[Image.Image]:
    """The picture, each time with another window of four parts in its mean colour, row by row."""
    mean = image.resize((1, 1), Image.Resampling.BOX).resize(image.size)
    across = np.linspace(0, image.width, columns + 1).round().astype(int).tolist()
    down = np.linspace(0, image.height, rows + 1).round().astype(int).tolist()
    covered = []
    for top, bottom in zip(down, down[2:], strict=False):
        for left, right in zip(across, across[2:], strict=False):
            covered.append(image.copy())
            box = (left, top, right, bottom)
            covered[-1].paste(mean.crop(box), box)
    return covered


def _of_parts(drops: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each part makes a cosine fall: the mean of the windows that cover it.

    Args:
        drops: of the windows, shape (rows - 1, columns - 1).
    """
    rows, columns = drops.shape
    total, windows = np.zeros((2, rows + 1, columns + 1), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            place = np.s_[down : down + rows, right : right + columns]
            total[place] += drops
            windows[place] += 1
    mean: NDArray[np.float32] = total / windows
    return mean


def lit(image: Image.Image, parts: NDArray[np.float32]) -> bytes:
    """The picture, bright where it drives the fit and dark where it does not, as a JPEG.

    Args:
        parts: see `Drivers`.
    """
    shown = as_rgb(image).copy()
    shown.thumbnail(SHOWN)
    most = max(float(parts.max()), 1e-9)
    light = Image.fromarray(np.clip(parts / most, 0, 1).astype(np.float32))
    mask = np.asarray(light.resize(shown.size, Image.Resampling.BICUBIC))
    bright = DARK + (1 - DARK) * np.clip(mask, 0, 1)[..., None]
    file = io.BytesIO()
    Image.fromarray((np.asarray(shown) * bright).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()
