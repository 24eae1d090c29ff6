"""The pictures of a report: the curves of training and the sheet of the worst misses."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from thumbtune.data.thumbnails import Example, load_image
from thumbtune.learning.evaluation import OUT_OF_FOLD, Prediction
from thumbtune.learning.recipes import Trial
from thumbtune.learning.trained_model import LossPoint
from thumbtune.store.workspace import Workspace

THUMBNAIL = (368, 207)  # pixels, in the sheet and on the page
COLUMNS = 3
GAP, PAD, LINE = 20, 12, 22  # pixels: between cards, inside a card, from line to line
HEADER = 64
TITLE, FIT, FIT_ROW = 420, (184, 104), 56  # pixels: of titles, thumbnails and rows of a grid
CARD = (THUMBNAIL[0] + 2 * PAD, THUMBNAIL[1] + 6 * LINE + 4 * PAD)
LONGEST = 300  # characters of a title that are looked at; YouTube allows 100

INK, SOFT, PAGE, GOOD, BAD = "#1c2430", "#5c6778", "#f1f3f6", "#1b7f4b", "#b3261e"
NEUTRAL = "#7d8793"  # reads on white and on black
CHOSEN = "#2f9e68"
LOG_TICKS = {
    "learning_rate": (1e-5, 1e-4, 1e-3, 1e-2),
    "epochs": (1, 3, 10, 30),
    "scale": (5, 10, 20, 50, 100),
}
"""Hyperparameters that are drawn on a logarithmic axis."""

WIDE = {"left": 0.065, "right": 0.99, "bottom": 0.14, "top": 0.92, "wspace": 0.18}
TALL = {"left": 0.17, "right": 0.98, "bottom": 0.09, "top": 0.95, "hspace": 0.4}
"""Where the two curves stand; a layout that is reckoned takes longer than all the drawing."""

OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "Microsoft YaHei",
)
"""Fonts, where a machine has them, for titles that DejaVu Sans cannot show."""


class Miss(NamedTuple):
    """A thumbnail for which the model chose a wrong title."""

    example: Example
    prediction: Prediction


def worst_misses(
    examples: Sequence[Example], predictions: Sequence[Prediction], most: int = 12
) -> list[Miss]:
    """The misses on what decides, or on valid if it has none; the highest rank first."""
    rows = {example.id: example for example in examples}
    missed = [answer for answer in predictions if answer.rank > 1]
    misses = [answer for answer in missed if answer.split in ("test", OUT_OF_FOLD)]
    misses = misses or [answer for answer in missed if answer.split == "valid"]
    misses.sort(key=lambda answer: (-answer.rank, answer.similarity - answer.top_similarity))
    return [Miss(rows[answer.video_id], answer) for answer in misses[:most]]


def misses_heading(split: str | None) -> str:
    """What to write over the misses on a split, or over their absence (None)."""
    if split is None:
        return "No misses: every thumbnail finds its own title"
    return f"Worst misses {'of all videos' if split == OUT_OF_FOLD else f'on the {split} split'}"


def loss_curve(history: Sequence[LossPoint], best_epoch: float, for_phone: bool = False) -> bytes:
    """The losses and the validation MRR over the epochs, with the epoch that was kept.

    Returns:
        A PNG picture with a transparent ground, for light and dark pages: 1280x512 pixels, or for
        a phone, with one above the other, 720x960.
    """
    size, dpi = ((3.6, 4.8), 200) if for_phone else ((8, 3.2), 160)
    figure = Figure(figsize=size, dpi=dpi)
    figure.subplots_adjust(**(TALL if for_phone else WIDE))
    FigureCanvasAgg(figure)
    loss, mrr = figure.subplots(2, 1) if for_phone else figure.subplots(1, 2, width_ratios=(3, 2))
    steps = [(point.epoch, point.train_loss) for point in history if point.train_loss is not None]
    valid = [(point.epoch, point.valid_loss) for point in history if point.valid_loss is not None]
    ranks = [(point.epoch, point.valid_mrr) for point in history if point.valid_mrr is not None]
    loss.plot(*_columns(steps), color=NEUTRAL, lw=1.2, label="train, each step")
    loss.plot(*_columns(valid), "o-", color="#e0574f", ms=4, label="validation")
    mrr.plot(*_columns(ranks), "o-", color=CHOSEN, ms=4, label="validation")
    loss.set_ylim(bottom=0)
    mrr.margins(y=0.15)
    _style(loss, "Loss (lower is better)", best_epoch)
    _style(mrr, "Mean reciprocal rank (higher is better)", best_epoch)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return file.getvalue()


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _style(axes: Any, title: str, best_epoch: float) -> None:
    axes.axvline(best_epoch, color=NEUTRAL, ls="--", lw=1, label="epoch kept")
    axes.set_xlabel("epoch", color=NEUTRAL, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, labelcolor=NEUTRAL, fontsize=8)
    _tint(axes, title)


def _tint(axes: Any, title: str) -> None:
    axes.set_title(title, color=NEUTRAL, fontsize=9, loc="left")
    axes.tick_params(colors=NEUTRAL, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(NEUTRAL)
    axes.grid(color=NEUTRAL, alpha=0.2)


def trial_slices(trials: Sequence[Trial]) -> bytes:
    """For each hyperparameter, its values and what they validated at; the best trial is marked.

    Returns:
        A PNG picture of 1280x800 pixels with a transparent ground, for light and dark pages.
    """
    figure = Figure(figsize=(8, 5), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    best = max(trials, key=lambda trial: trial.valid_mrr)
    names = [name for name in Trial.model_fields if name not in ("number", "valid_mrr")]
    panels = list(figure.subplots(2, 4, sharey=True).flat)
    for axes, name in zip(panels, names, strict=False):
        ordered = sorted(trials, key=lambda trial: getattr(trial, name))
        values = [getattr(trial, name) for trial in ordered]
        if name in LOG_TICKS:
            axes.set_xscale("log")
            axes.set_xticks(LOG_TICKS[name], [f"{tick:g}" for tick in LOG_TICKS[name]])
            axes.minorticks_off()
        elif name != "interpolation":
            values = [str(value).replace("_", "\n") for value in values]
        axes.scatter(values, [trial.valid_mrr for trial in ordered], s=14, color=NEUTRAL, alpha=0.6)
        axes.scatter(values[ordered.index(best)], best.valid_mrr, s=40, color=CHOSEN, zorder=3)
        _tint(axes, name.replace("_", " "))
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supylabel("validation MRR", color=NEUTRAL, fontsize=9)
    return _png(figure)


def miss_sheet(workspace: Workspace, misses: Sequence[Miss]) -> bytes:
    """The misses side by side, each thumbnail with its title and the model's choice.

    Returns:
        A JPEG picture, 1256 pixels wide.
    """
    rows = -(-len(misses) // COLUMNS)
    width = GAP + COLUMNS * (CARD[0] + GAP)
    sheet = Image.new("RGB", (width, HEADER + rows * (CARD[1] + GAP)), PAGE)
    pen = ImageDraw.Draw(sheet)
    heading = misses_heading(misses[0].prediction.split if misses else None)
    pen.text((GAP, HEADER // 2), heading, INK, _font(DEJAVU_BOLD, 24), anchor="lm")
    for place, miss in enumerate(misses):
        x = GAP + place % COLUMNS * (CARD[0] + GAP)
        y = HEADER + place // COLUMNS * (CARD[1] + GAP)
        pen.rounded_rectangle((x, y, x + CARD[0], y + CARD[1]), 10, "white", "#dfe4ea")
        sheet.paste(_fitted(load_image(workspace, miss.example)), (x + PAD, y + PAD))
        _write(pen, x + PAD, y + THUMBNAIL[1] + 2 * PAD, miss)
    return as_jpeg(sheet)


def first_cards(sheet: bytes, count: int) -> bytes:
    """The first cards of a sheet of misses, two in a row, as a JPEG picture."""
    across, down = CARD[0] + GAP, CARD[1] + GAP
    few = Image.new("RGB", (GAP + 2 * across, GAP + -(-count // 2) * down), PAGE)
    with Image.open(io.BytesIO(sheet)) as whole:
        for place in range(count):
            x, y = GAP + place % COLUMNS * across, HEADER + place // COLUMNS * down
            card = whole.crop((x, y, x + CARD[0], y + CARD[1]))
            few.paste(card, (GAP + place % 2 * across, GAP + place // 2 * down))
    return as_jpeg(few)


def fit_sheet(pictures: Sequence[Image.Image], rows: Sequence[tuple[str, list[float]]]) -> bytes:
    """How well titles fit thumbnails, as a PNG picture: a row a title, a column a thumbnail.

    Args:
        rows: a title, and a percentile for each picture.
    """
    width, height = FIT
    top = HEADER + height
    size = (TITLE + len(pictures) * (width + PAD) + GAP, top + GAP + len(rows) * FIT_ROW)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    note = "How well titles fit thumbnails: percent of the channel's own pairs that fit less well"
    pen.text((GAP, HEADER // 2), note, SOFT, _font(DEJAVU, 14), anchor="lm")
    for column, picture in enumerate(pictures):
        sheet.paste(_fitted(picture).resize(FIT), (TITLE + column * (width + PAD), HEADER))
    for row, (title, percentiles) in enumerate(rows):
        y = top + PAD + row * FIT_ROW
        for number, (line, font) in enumerate(_typeset(title, 15, TITLE - GAP - PAD)):
            pen.text((GAP, y + number * LINE), line, INK, font)
        for column, percentile in enumerate(percentiles):
            x = TITLE + column * (width + PAD)
            pen.rectangle((x, y, x + width, y + FIT_ROW - 6), _heat(percentile))
            middle = (x + width // 2, y + FIT_ROW // 2 - 3)
            pen.text(middle, f"{percentile:.0f}", INK, _font(DEJAVU_BOLD, 17), anchor="mm")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _heat(percentile: float) -> tuple[int, int, int]:
    """From white to green, light enough for dark figures."""
    share = percentile / 100
    return (round(255 - 140 * share), round(255 - 45 * share), round(255 - 105 * share))


def thumbnail_jpeg(workspace: Workspace, example: Example) -> bytes:
    """A JPEG of an example's thumbnail in the size of THUMBNAIL."""
    return as_jpeg(_fitted(load_image(workspace, example)))


def as_jpeg(image: Image.Image) -> bytes:
    """A picture as JPEG bytes."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return file.getvalue()


def _fitted(image: Image.Image) -> Image.Image:
    """The picture, whole, on a canvas of THUMBNAIL's size."""
    canvas = Image.new("RGB", THUMBNAIL, "#dddddd")
    scale = min(THUMBNAIL[0] / image.width, THUMBNAIL[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(image, ((THUMBNAIL[0] - size[0]) // 2, (THUMBNAIL[1] - size[1]) // 2))
    return canvas


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, miss: Miss) -> None:
    answer = miss.prediction
    texts = [
        (f"its title · rank {answer.rank} · {answer.similarity:.2f}", miss.example.title, GOOD),
        (f"the model chose · {answer.top_similarity:.2f}", answer.top_title, BAD),
    ]
    for label, title, colour in texts:
        pen.text((x, y), label, colour, _font(DEJAVU_BOLD, 14))
        for row, (line, font) in enumerate(_typeset(title, 15, THUMBNAIL[0]), start=1):
            pen.text((x, y + row * LINE), line, INK, font)
        y += 3 * LINE + PAD


def _typeset(title: str, size: int, width: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """One or two lines of at most `width` pixels, with their font; "…" stands for what is too much.

    Characters that no font here can show, such as emoji, are left out; the HTML report has them.
    """
    words = " ".join(title[:LONGEST].split())
    shown = {file: "".join(c for c in words if ord(c) in _characters(file)) for file in _fonts()}
    file = max(shown, key=lambda file: len(shown[file]))
    text = " ".join(shown[file].split()) or "(not in a script that this picture can show)"
    font = _font(file, size)
    first = _fitting(text, font, width)
    if first < len(text):
        first = text.rfind(" ", 0, first + 1) if " " in text[1 : first + 1] else first
    rest = text[first:].lstrip()
    if font.getlength(rest) > width:
        rest = rest[: _fitting(rest, font, width - font.getlength("…"))].rstrip() + "…"
    return [(line, font) for line in (text[:first], rest) if line]


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> int:
    """How many of the first characters take at most `width` pixels."""
    return max(n for n in range(len(text) + 1) if font.getlength(text[:n]) <= width)


DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
"""matplotlib brings it along on every machine: Latin, Greek, Cyrillic, Arabic, Hebrew and more."""

DEJAVU_BOLD = DEJAVU.with_stem("DejaVuSans-Bold")


@cache
def _fonts() -> tuple[Path, ...]:
    installed = {font.name: Path(font.fname) for font in fontManager.ttflist}
    return (DEJAVU, *(installed[name] for name in OTHER_SCRIPTS if name in installed))


@cache
def _characters(file: Path) -> frozenset[int]:
    return frozenset(code for code in FT2Font(str(file)).get_charmap() if chr(code).isprintable())


def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
