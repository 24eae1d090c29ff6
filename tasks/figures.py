"""The pictures of a report: the loss curve and the sheet of the worst misses."""

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from tasks.evaluation import Prediction
from tasks.thumbnails import Example, load_image
from tasks.training import LossPoint
from tasks.workspace import Workspace

THUMBNAIL = (320, 180)  # pixels, in the sheet
TEXT_HEIGHT = 112
COLUMNS = 3


class Miss(NamedTuple):
    """A thumbnail for which the model chose a wrong title."""

    example: Example
    prediction: Prediction


def worst_misses(
    examples: Sequence[Example], predictions: Sequence[Prediction], most: int = 12
) -> list[Miss]:
    """The misses on the test split, those of the highest rank first."""
    rows = {example.id: example for example in examples}
    misses = [p for p in predictions if p.split == "test" and p.rank > 1]
    misses.sort(key=lambda p: (-p.rank, p.similarity - p.top_similarity))
    return [Miss(rows[p.video_id], p) for p in misses[:most]]


def loss_curve(history: Sequence[LossPoint], best_epoch: float) -> bytes:
    """The losses over the epochs, with the epoch that was kept: a PNG picture."""
    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps = [(point.epoch, point.train_loss) for point in history if point.train_loss is not None]
    valid = [(point.epoch, point.valid_loss) for point in history if point.valid_loss is not None]
    axes.plot(*zip(*steps, strict=True), color="#9aa7b8", lw=1.2, label="train, each step")
    if valid:
        axes.plot(*zip(*valid, strict=True), "o-", color="#d1495b", ms=4, label="validation")
        axes.axvline(best_epoch, color="#2e7d5b", ls="--", lw=1, label="kept")
    axes.set(xlabel="epoch", ylabel="MultipleNegativesRankingLoss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def miss_sheet(workspace: Workspace, misses: Sequence[Miss]) -> bytes:
    """The misses side by side, each thumbnail with its title and the model's choice: a JPEG."""
    width, height = THUMBNAIL[0] + 16, THUMBNAIL[1] + TEXT_HEIGHT
    rows = max(1, -(-len(misses) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * width + 16, rows * height + 16), "white")
    for place, miss in enumerate(misses):
        corner = (16 + place % COLUMNS * width, 16 + place // COLUMNS * height)
        sheet.paste(_fitted(load_image(workspace, miss.example)), corner)
        _write(ImageDraw.Draw(sheet), corner[0], corner[1] + THUMBNAIL[1] + 4, miss)
    if not misses:
        pen = ImageDraw.Draw(sheet)
        pen.text((24, 24), "No misses on the test split.", "#333333", _font(16))
    return as_jpeg(sheet)


def thumbnail_jpeg(workspace: Workspace, example: Example) -> bytes:
    """A small JPEG of an example's thumbnail."""
    return as_jpeg(_fitted(load_image(workspace, example)))


def as_jpeg(image: Image.Image) -> bytes:
    """A picture as JPEG bytes."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return file.getvalue()


def _fitted(image: Image.Image) -> Image.Image:
    """The picture, whole, on a canvas of THUMBNAIL's size."""
    canvas = Image.new("RGB", THUMBNAIL, "#dddddd")
    image.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    canvas.paste(image, ((THUMBNAIL[0] - image.width) // 2, (THUMBNAIL[1] - image.height) // 2))
    return canvas


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, miss: Miss) -> None:
    answer = miss.prediction
    texts = [
        (f"own (rank {answer.rank}, {answer.similarity:.2f})", miss.example.title, "#1b7f4b"),
        (f"chosen ({answer.top_similarity:.2f})", answer.top_title, "#b3261e"),
    ]
    for label, title, colour in texts:
        pen.text((x, y), label, colour, _font(11))
        lines = wrap(shorten(_drawable(title), 84, placeholder="…"), 46)[:2]
        pen.text((x, y + 13), "\n".join(lines), "#222222", _font(12))
        y += 50


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _drawable(title: str) -> str:
    """Without what the font has no glyph for, such as emoji; the HTML report shows all."""
    return "".join(c if c.isprintable() and ord(c) < 0x2E80 else " " for c in title).strip()
