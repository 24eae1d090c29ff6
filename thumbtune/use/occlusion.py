"""What drives a fit: parts of the picture and words of the title without which it is another.

Occlusion (Zeiler & Fergus 2014, arXiv:1311.2901): each part is covered in turn, and the change of
the cosine is its share. What the model never sees, such as the sides of a wide picture that CLIP
cuts off, changes nothing.
"""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thumbtune.data.thumbnails import as_rgb
from thumbtune.use.matching import Matcher

COLUMNS, ROWS = 8, 5
"""Parts of a picture: with ViT-B/32 all are looked at in about a second on two cores."""
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


def drivers(matcher: Matcher, image: Image.Image, title: str) -> Drivers:
    """Find what makes a title and a picture fit."""
    words = title.split()[:MOST_WORDS]
    shorter = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    titles = [title, *(shorter if len(words) > 1 else [])]
    vectors = matcher.embed_titles(titles)
    pictures = matcher.embed_images([image, *_covered(as_rgb(image))])
    cosine = float(pictures[0] @ vectors[0])
    drops_of_windows = (cosine - pictures[1:] @ vectors[0]).reshape(ROWS - 1, COLUMNS - 1)
    drops = (cosine - vectors[1:] @ pictures[0]).tolist()
    most = max([*drops, 1e-9])
    told = [
        Word(text, drop, max(0.0, drop / most)) for text, drop in zip(words, drops, strict=False)
    ]
    return Drivers(cosine, _of_parts(drops_of_windows), told)


def _covered(image: Image.Image) -> list[Image.Image]:
    """The picture, each time with another window of four parts in its mean colour, row by row."""
    mean = image.resize((1, 1), Image.Resampling.BOX).resize(image.size)
    columns = np.linspace(0, image.width, COLUMNS + 1).round().astype(int).tolist()
    rows = np.linspace(0, image.height, ROWS + 1).round().astype(int).tolist()
    covered = []
    for top, bottom in zip(rows, rows[2:], strict=False):
        for left, right in zip(columns, columns[2:], strict=False):
            covered.append(image.copy())
            box = (left, top, right, bottom)
            covered[-1].paste(mean.crop(box), box)
    return covered


def _of_parts(drops: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each part makes a cosine fall: the mean of the windows that cover it.

    Args:
        drops: of the windows, shape (rows - 1, columns - 1).
    """
    total, windows = np.zeros((2, ROWS, COLUMNS), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            place = np.s_[down : down + ROWS - 1, right : right + COLUMNS - 1]
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
