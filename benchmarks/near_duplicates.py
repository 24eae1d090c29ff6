"""Are copies of a thumbnail found? `python benchmarks/near_duplicates.py --channel DIR`

Of every fourth picture of a channel a copy is added: cropped (8 to 20 % of each side), recompressed
(at half to four fifths of its size, JPEG quality 30 to 60), or under a caption. Printed in
markdown: the share of copies that are found, and of all pairs of the channel's own pictures the
share that is taken for nearly the same. Some of those are: look at them with `--show FILE`.
"""

import argparse
import contextlib
import io
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from thumbtune.channel.sources.folder.listing import list_folder
from thumbtune.data.looks import look_at
from thumbtune.data.near_duplicates import Seen, compare
from thumbtune.data.thumbnails import BadThumbnailError, letterbox, load_cropped
from thumbtune.sample import CHANNEL

Copy = Callable[[Image.Image, random.Random], Image.Image]


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Written and read again."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A part of it, at its old size."""
    share = rng.uniform(0.8, 0.92)
    width, height = (int(side * share) for side in picture.size)
    x, y = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    part = picture.crop((x, y, x + width, y + height))
    return as_jpeg(part.resize(picture.size, Image.Resampling.LANCZOS), 85)


def recompressed(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Smaller, and with what JPEG does to it."""
    share = rng.uniform(0.5, 0.8)
    size = tuple(max(32, int(side * share)) for side in picture.size)
    return as_jpeg(picture.resize(size, Image.Resampling.LANCZOS), rng.randint(30, 60))


def captioned(picture: Image.Image, rng: random.Random) -> Image.Image:
    """With large letters at the top or at the bottom, on a bar or on the picture itself."""
    picture = picture.copy()
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    size = int(height * rng.uniform(0.13, 0.2))
    y = int(height * 0.03) if rng.random() < 0.5 else int(height * 0.95 - size)
    if rng.random() < 0.5:
        bar = rng.choice(["black", "red", "yellow"])
        draw.rectangle((0, y - 4, width, y + size + 6), fill=bar)
    text = rng.choice(["PART TWO", "WOW! HUGE", "NEW in 2024", "EPISODE 17"])
    draw.text(
        (int(width * 0.05), y),
        text,
        font=ImageFont.load_default(size),
        fill="white",
        stroke_width=3,
        stroke_fill="black",
    )
    return as_jpeg(picture, 85)


COPIES: dict[str, Copy] = {
    "cropped": cropped,
    "recompressed": recompressed,
    "captioned": captioned,
}


class Measured(NamedTuple):
    """What came of the copies of one kind."""

    copies: int
    found: float
    """Share of the copies."""
    false_pairs: float
    """Share of the pairs of the channel's own pictures."""
    alike: list[tuple[int, int]]
    """Those pairs."""
    seconds: float
    """For the channel's own pictures, which are looked at first."""


def find_copies(pictures: Sequence[Image.Image], copy: Copy, seed: int, every: int = 4) -> Measured:
    """Plant copies among a channel's thumbnails, after these were compared, and look for them."""
    rng = random.Random(seed)
    shown = {f"{n}": _freed(picture) for n, picture in enumerate(pictures)}
    began = time.perf_counter()
    own = _compare(Seen.nothing(), shown)
    seconds = time.perf_counter() - began
    originals = range(0, len(pictures), every)
    copies = {f"copy {n}": copy(pictures[n], rng) for n in originals}
    seen = _compare(own, shown | {name: _freed(picture) for name, picture in copies.items()})
    number = {name: place for place, name in enumerate(seen.names)}
    pairs = {tuple(pair) for pair in seen.pairs.tolist()}
    found = sum((n, number[f"copy {n}"]) in pairs for n in originals)
    alike = [(one, other) for one, other in own.pairs.tolist()]
    count = math.comb(len(pictures), 2)
    return Measured(len(copies), found / len(copies), len(alike) / count, alike, seconds)


def _compare(seen: Seen, pictures: dict[str, Image.Image]) -> Seen:
    files = {name: (name, None) for name in pictures}
    return compare(seen, files, lambda picture: look_at(pictures[picture[0]]))


def _freed(picture: Image.Image) -> Image.Image:
    crop = letterbox(picture)
    return picture.crop(crop) if crop else picture


def thumbnails_of(channel: Path) -> Iterator[Image.Image]:
    """The usable ones of a folder."""
    for video in list_folder(channel)[0]:
        with contextlib.suppress(OSError, BadThumbnailError):
            yield load_cropped(Path(video.thumbnails["file"]), None)


def show(pictures: Sequence[Image.Image], pairs: Sequence[tuple[int, int]], file: Path) -> None:
    """Draw the pairs that are taken for nearly the same."""
    sheet = Image.new("RGB", (5 * 260, max(1, -(-len(pairs) // 5)) * 100), "grey")
    for place, pair in enumerate(pairs):
        for side, number in enumerate(pair):
            spot = place % 5 * 260 + side * 125, place // 5 * 100
            sheet.paste(pictures[number].resize((120, 90)), spot)
    sheet.save(file)


def main() -> None:
    """Measure each channel, and print a table."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--channel", type=Path, action="append", help="a folder; the sample")
    parser.add_argument("--show", type=Path, help="a picture of the pairs of the last channel")
    parser.add_argument("--quick", action="store_true", help="forty pictures of each channel")
    asked = parser.parse_args()
    print(
        "| channel | pictures | ms each |", " | ".join(COPIES), "| own pairs taken for the same |"
    )
    print("| --- | ---: | ---: |", " | ".join("---:" for _ in COPIES), "| ---: |")
    for channel in asked.channel or [CHANNEL]:
        pictures = list(islice(thumbnails_of(channel), 40 if asked.quick else None))
        measured = [find_copies(pictures, copy, seed=0) for copy in COPIES.values()]
        each, own = measured[0].seconds / len(pictures) * 1000, measured[0]
        found = " | ".join(f"{one.found:.1%}" for one in measured)
        alike = f"{len(own.alike)} ({own.false_pairs:.3%})"
        print(f"| {Path(channel).name} | {len(pictures)} | {each:.0f} | {found} | {alike} |")
        if asked.show:
            show(pictures, own.alike, asked.show)


if __name__ == "__main__":
    main()
