"""What a picture looks like: enough to know it again cropped, recompressed or under a caption.

Corners with binary words (ORB, Rublee et al. 2011, https://docs.opencv.org/4.x/db/d95/) lay one
picture on the other; they are nearly the same if then almost every edge of the two agrees, but
for a strip at the top or at the bottom, where a caption may be.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

SIDE = 256
"""Pixels of a view's longer side; edges are compared at half of it."""

LARGEST = 320  # pixels of a side before a picture's frame is looked for
CORNERS = 150
CELLS = 5  # by 5: a caption has the strongest corners, so each place keeps some of its own
OF_A_CELL = 10
DARK = 40  # of 255; what JPEG leaves of a black bar
EDGE = 24  # of 255, between neighbours
NEAR = 64  # of 256 bits that two words of one corner may differ in
LEAST_CORNERS = 5  # that fit; two decide where the others should lie
LEAST_ALIKE = 0.5  # cosine of two grids, for a look at the pictures as they are
TURN = 5.0  # degrees
ZOOM = 2.5  # of one picture against the other
ASPECT = 1.18  # of two whole views that are laid on each other as they are
TOLERANCE = 24  # of 255, after a pixel of play
LEAST_EDGE = 150  # pixels; with fewer, a dot is like any other
LEAST_EDGE_BY_CORNERS = 80  # …, if corners have brought them together
LEAST_SEEN = 0.4  # of one picture, in the other

WHOLE = 0.95
"""Share of the edges that agree in pictures that are nearly the same, …"""

UNDER_A_CAPTION = 0.98
"""… and outside of a strip. Measured on planted copies by benchmarks/near_duplicates.py."""

STRIPS = (0.2, 0.3, 0.36)  # of the height, at the top or at the bottom


class View(NamedTuple):
    """A picture, or what it shows on a plain ground, at one size."""

    places: NDArray[np.float32]
    """Of the corners, in those of `pixels`, shape (corners, 2)."""
    words: Pixels
    """Of the corners, shape (corners, 32): 256 bits each."""
    pixels: Pixels
    """Smoothed, shape (height, width, 3)."""
    edges: Pixels
    """0 or 1, shape (height, width)."""
    grid: NDArray[np.float32]
    """Brightness in 8 x 8 cells, of mean 0 and length 1, shape (64,)."""


def look_at(picture: Image.Image) -> list[View]:
    """The whole picture, and then what it shows, if that lies on a plain ground.

    Args:
        picture: RGB.
    """
    picture = picture.copy()
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    pixels = _without_bars(np.asarray(picture))
    shown = _shown(pixels)
    return [_view(pixels), *([] if shown is None else [_view(shown)])]


def _without_bars(pixels: Pixels) -> Pixels:
    """A crop may leave some of a letterbox's bars."""
    dark: NDArray[np.bool_] = np.less(_largest(pixels), DARK)
    rows, columns = (_inside(np.all(dark, axis=axis)) for axis in (1, 0))
    inner = pixels[rows, columns]
    return inner[2:-2, 2:-2] if min(inner.shape[:2]) > 40 else inner  # bars end in grey lines


def _largest(pixels: NDArray[Any]) -> NDArray[Any]:
    """Of the three colours; NumPy's `max` takes ten times as long on so short an axis."""
    return np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


def _inside(dark: NDArray[np.bool_]) -> slice:
    most = len(dark) * 2 // 5
    first = int(np.argmin(dark[:most])) if most else 0
    last = int(np.argmin(dark[::-1][:most])) if most else 0
    return slice(first, len(dark) - last)


def _shown(pixels: Pixels) -> Pixels | None:
    """What differs from the plain ground that it lies on; None if there is none, or it fills it."""
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1).astype(np.int16)
    border = np.concatenate([smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1]])
    ground = np.median(border, axis=0)
    if (np.abs(border - ground).max(axis=1) > EDGE).mean() > 0.1:
        return None
    differs = _largest(np.abs(smooth - ground)) > EDGE
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < 6:
        return None
    shown = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return shown if shown.size < 0.8 * pixels.size else None


def _view(pixels: Pixels) -> View:
    pixels = _resized(pixels, SIDE)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    places, words = _corners(grey)
    small = cv2.GaussianBlur(_resized(pixels, SIDE // 2), (0, 0), 1.2)
    edges = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
    grid = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    grid -= grid.mean()
    return View(
        places / np.float32(2),
        words,
        np.asarray(small, np.uint8),
        (_largest(edges) > EDGE).astype(np.uint8),
        grid / max(float(np.linalg.norm(grid)), 1e-6),
    )


def _resized(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(side // 8, round(width * scale)), max(side // 8, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def _corners(grey: cv2.typing.MatLike) -> tuple[NDArray[np.float32], Pixels]:
    orb = cv2.ORB_create(1000, 1.2, 6, 12, 0, 2, cv2.ORB_HARRIS_SCORE, 24, 4)  # type: ignore[attr-defined]
    corners, words = orb.compute(grey, _spread(orb.detect(grey, None), grey.shape))
    if not len(corners):
        return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
    return np.array([corner.pt for corner in corners], np.float32), np.asarray(words, np.uint8)


def _spread(corners: Sequence[cv2.KeyPoint], shape: Sequence[int]) -> list[cv2.KeyPoint]:
    """The strongest of each cell, and then the strongest of all."""
    kept: list[cv2.KeyPoint] = []
    rest: list[cv2.KeyPoint] = []
    cells: Counter[tuple[int, int]] = Counter()
    for corner in sorted(corners, key=lambda corner: -corner.response):
        cell = int(corner.pt[0] * CELLS / shape[1]), int(corner.pt[1] * CELLS / shape[0])
        cells[cell] += 1
        (kept if cells[cell] <= OF_A_CELL else rest).append(corner)
    return kept + rest[: max(0, CORNERS - len(kept))]


def are_nearly_the_same(one: Sequence[View], other: Sequence[View]) -> bool:
    """Whether one of two pictures is the other cropped, recompressed or under a caption."""
    return any(
        _agree(first, second, map_, least)
        for first, second in zip(one, other, strict=False)
        for map_, least in _maps(first, second)
    )


def _maps(one: View, other: View) -> Iterator[tuple[NDArray[np.float64], int]]:
    """Ways to lay the other view on the first, shape (2, 3), and how much edge each needs."""
    height, width = one.edges.shape
    high, wide = other.edges.shape
    alike = float(one.grid @ other.grid) > LEAST_ALIKE
    if alike and 1 / ASPECT < (width / height) / (wide / high) < ASPECT:
        yield np.array([[width / wide, 0, 0], [0, height / high, 0]]), LEAST_EDGE
    if (found := _by_corners(one, other)) is not None:
        yield found, LEAST_EDGE_BY_CORNERS


def _by_corners(one: View, other: View) -> NDArray[np.float64] | None:
    """Shift and zoom that bring most corners onto those of the same word (RANSAC)."""
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    if not len(one.words) or not len(other.words):
        return None
    found = [match for match in matcher.match(other.words, one.words) if match.distance < NEAR]
    if len(found) < LEAST_CORNERS:
        return None
    places = other.places[[match.queryIdx for match in found]]
    aims = one.places[[match.trainIdx for match in found]]
    map_, fitting = cv2.estimateAffinePartial2D(
        places, aims, method=cv2.RANSAC, ransacReprojThreshold=2.5, maxIters=300
    )
    if map_ is None or fitting.sum() < LEAST_CORNERS:
        return None
    zoom = float(np.hypot(map_[0, 0], map_[1, 0]))
    turn = abs(float(np.degrees(np.arctan2(map_[1, 0], map_[0, 0]))))
    fits = 1 / ZOOM < zoom < ZOOM and turn < TURN
    return np.asarray(map_, np.float64) if fits else None


def _agree(one: View, other: View, map_: NDArray[np.float64], least: int) -> bool:
    """Whether the edges of two views agree, where both are seen."""
    height, width = one.edges.shape

    def laid(image: cv2.typing.MatLike) -> Pixels:
        return np.asarray(cv2.warpAffine(image, map_, (width, height)), np.uint8)

    seen = laid(np.full(other.edges.shape, 255, np.uint8)) > 250
    edges = (one.edges | laid(other.edges)).astype(bool) & seen
    if seen.mean() < LEAST_SEEN or min(one.edges.sum(), edges.sum()) < least:
        return False
    near = np.ones((3, 3), np.uint8)
    too_dark = cv2.subtract(laid(cv2.erode(other.pixels, near)), one.pixels)
    too_bright = cv2.subtract(one.pixels, laid(cv2.dilate(other.pixels, near)))
    differ = _largest(np.maximum(too_dark, too_bright)) >= TOLERANCE
    of_rows, agreeing = edges.sum(axis=1), (edges & ~differ).sum(axis=1)
    if agreeing.sum() >= WHOLE * of_rows.sum():
        return True
    own = (one.edges * seen).sum(axis=1)
    return any(
        own[rows].sum() >= own.sum() / 2
        and of_rows[rows].sum() >= least
        and agreeing[rows].sum() >= UNDER_A_CAPTION * of_rows[rows].sum()
        for rows in _outside_of_strips(height)
    )


def _outside_of_strips(height: int) -> Iterator[slice]:
    for share in STRIPS:
        yield slice(int(height * share), height)
        yield slice(0, height - int(height * share))
