"""What the tabs of the page share: its templates, its events, and how an upload is read.

Titles are text of strangers. They reach the page through Jinja's escaping and a plain `gr.HTML`;
in an `html_template` of Gradio's, `${…}` in a title would run as JavaScript.
"""

import atexit
import os
import shutil
from collections.abc import Callable
from functools import cache, wraps
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

from jinja2 import Environment
from PIL import Image

from thumbtune.app.in_use import Champion, QuestionError
from thumbtune.errors import UserError
from thumbtune.reporting.figures import as_jpeg
from thumbtune.reporting.report import data_uri, html_templates
from thumbtune.store.disk import in_plain_words
from thumbtune.use.matching import Matcher
from thumbtune.use.uploads import reduced
from thumbtune.use.verdicts import in_words

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # both are read while Gradio is imported
os.environ["GRADIO_TEMP_DIR"] = mkdtemp(prefix="thumbtune-")

import gradio as gr

atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)


T = TypeVar("T")

PREVIEW = (320, 180)  # pixels, of thumbnails that are offered, and of the one that is asked about

LARGE = (1280, 720)  # pixels, of one that is looked at alone
FOUND = (460, 259)  # pixels, of a thumbnail that was found

RAW: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress": "minimal"}
"""Of every event: Gradio hands on an upload as it came, so that it is checked here and once."""

QUIET: dict[str, Any] = {**RAW, "show_progress": "hidden"}

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


def share_in_words(percentile: float) -> str:
    """How many of the channel's own pairs a percentile is; only all is called all."""
    if percentile >= 100:
        return "better than all"
    if percentile <= 0:
        return "not better than any"
    return f"better than {min(99, max(1, round(percentile)))} %"


CHOOSES = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) trigger("select", { index: button.dataset.act, value: button.dataset.id });
  if (!event.target.matches("img[data-map]")) return;
  const box = event.target.getBoundingClientRect();
  const place = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  trigger("select", { index: "at", value: place });
});
"""
"""Of a part of the page: which of its buttons, or where its map, was pressed is told as its event
`select`."""


def choosing(name: str, hint: str = "", **options: Any) -> gr.HTML:
    """A part of the page whose buttons choose.

    Args:
        hint: what stands there first.
    """
    shown = html("hint", message=hint) if hint else None
    return gr.HTML(shown, apply_default_css=False, elem_id=name, js_on_load=CHOOSES, **options)


ENLARGED = "() => window.thumbtune?.enlarged()"


@cache
def _templates() -> Environment:
    environment = html_templates("thumbtune.app")
    environment.filters["in_words"] = in_words
    environment.filters["share_in_words"] = share_in_words
    return environment


def html(template: str, **values: Any) -> str:
    """A part of the page; every value is escaped."""
    return _templates().get_template(f"{template}.html.jinja").render(**values)


def or_toast(answer: Callable[..., T]) -> Callable[..., T]:
    """What an event of a button does, or at the edge of the page what kept it from that."""

    @wraps(answer)
    def event(*arguments: Any) -> T:
        try:
            return answer(*arguments)
        except (UserError, OSError) as problem:
            raise gr.Error(escape(in_plain_words(problem)), print_exception=False) from None

    return event


def told(answer: Callable[..., T], as_answer: Callable[[str], Any] = str) -> Callable[..., T]:
    """What an event shows: its answer, or in the same place what kept it from one.

    Args:
        as_answer: makes an answer of a part of the page.
    """

    @wraps(answer)
    def event(*arguments: Any) -> T:
        try:
            return answer(*arguments)
        except (UserError, OSError) as problem:
            shown: T = as_answer(html("problem", message=in_plain_words(problem)))
            return shown

    return event


def read_upload(upload: dict[str, Any] | None, matcher: Matcher) -> Image.Image:
    """An uploaded picture, read as those of the training; a larger one is made smaller first.

    Raises:
        QuestionError: there is none. PictureError: it is of no use.
    """
    if not upload or not upload.get("path"):
        raise QuestionError("There is no picture yet. Drop or paste one.")
    data = Path(upload["path"]).read_bytes()
    return matcher.read_picture(reduced(data, matcher.thumbnails.max_megapixels))


def small(image: Image.Image, size: tuple[int, int]) -> str:
    """A picture as a `data:` address, no larger than a size in pixels."""
    return data_uri(as_jpeg(resized(image, size)))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    small = image.copy()
    small.thumbnail(size)
    return small


def upload_of(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label,
        elem_id=name,
        sources=["upload", "clipboard"],
        type="filepath",
        format="png",  # without loss, for those that are chosen from the channel
        height=260,
        buttons=[],
        placeholder="Drop or paste a picture, or click to choose a file",
    )


def header(champion: Champion) -> str:
    """Which channel this is, and which version of its model is in use."""
    registry = champion.registry
    version = champion.version()
    return html(
        "header",
        channel=registry.identity.called,
        version=version,
        versions=len(registry.versions()),
        recall=version.metrics.get("Recall@1"),
        videos=version.examples.rows,
    )
