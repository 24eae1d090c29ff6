"""The page of `thumbtune web`: match titles with a thumbnail, search thumbnails, read the report.

Titles are text of strangers. They reach the page through Jinja's escaping and a plain `gr.HTML`;
in an `html_template` of Gradio's, `${…}` in a title would run as JavaScript.
"""

import atexit
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, wraps
from html import escape
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any, NamedTuple

from fastapi.middleware import Middleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from jinja2 import Environment
from PIL import Image

from thumbtune.app.address import check_address
from thumbtune.app.in_use import MAX_CHARACTERS, Champion, QuestionError, check_titles
from thumbtune.channel.registry import Registry
from thumbtune.data.thumbnails import BadThumbnailError, Example, load_image
from thumbtune.errors import UserError
from thumbtune.reporting.figures import as_jpeg
from thumbtune.reporting.report import data_uri, html_templates
from thumbtune.store.disk import in_plain_words
from thumbtune.store.workspace import Workspace
from thumbtune.text.titles import is_blank
from thumbtune.use.indexing import (
    Hit,
    search_picture,
    search_words,
)
from thumbtune.use.matching import (
    Fit,
    Matcher,
    NoModelError,
    PictureError,
    counted,
)

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # both are read while Gradio is imported
os.environ["GRADIO_TEMP_DIR"] = mkdtemp(prefix="thumbtune-")

import gradio as gr

atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

MAX_UPLOAD = "20mb"
MAX_FOUND = 48
PREVIEW = (320, 180)  # pixels, of those
FOUND = (460, 259)  # pixels, of a thumbnail that was found

PLACEHOLDER = (
    "I Built a Robot in the Woods\nCan a Robot Survive in the Woods?\nMy Robot, One Year Later"
)
MATCH_HINT = "Give a thumbnail and some title ideas: they are ranked here."
SEARCH_HINT = (
    "Say what a thumbnail shows, or give a picture: the channel’s nearest ones appear here."
)

RAW: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress": "minimal"}
"""Of every event: Gradio hands on an upload as it came, so that it is checked here and once."""

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


class Line(NamedTuple):
    """One title under both models."""

    title: str
    fine_tuned: Fit
    untouched: Fit
    untouched_place: int
    """Among the titles, 1 is best."""


def read_titles(text: str) -> list[str]:
    """The titles of a text, one a line; a title that stands there twice counts once.

    Raises:
        QuestionError: there is none, or one is too long, or there are too many.
    """
    titles = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not titles:
        raise QuestionError("There is no title yet. Type title ideas, one a line.")
    return check_titles(titles)


def read_upload(upload: dict[str, Any] | None, matcher: Matcher) -> Image.Image:
    """An uploaded picture, read as those of the training.

    Raises:
        QuestionError: there is none. PictureError: it is of no use.
    """
    if not upload or not upload.get("path"):
        raise QuestionError("There is no thumbnail yet. Drop or paste one, or choose one below it.")
    return matcher.read_picture(Path(upload["path"]).read_bytes())


def side_by_side(fine_tuned: Sequence[Fit], untouched: Sequence[Fit]) -> list[Line]:
    """Both models' answers on the same titles, in the order of the fine-tuned one."""
    places = {fit.title: (place, fit) for place, fit in enumerate(untouched, 1)}
    return [Line(fit.title, fit, places[fit.title][1], places[fit.title][0]) for fit in fine_tuned]


def in_words(percentile: float) -> str:
    """What a percentile among the channel's own pairs says; only all is called all."""
    if percentile >= 100:
        return "better than all"
    if percentile <= 0:
        return "not better than any"
    return f"better than {min(99, max(1, round(percentile)))} %"


@cache
def _templates() -> Environment:
    environment = html_templates("thumbtune.app")
    environment.filters["in_words"] = in_words
    return environment


def html(template: str, **values: Any) -> str:
    """A part of the page; every value is escaped."""
    return _templates().get_template(f"{template}.html.jinja").render(**values)


def told(answer: Callable[..., str]) -> Callable[..., str]:
    """What an event shows: its answer, or in the same place what kept it from one."""

    @wraps(answer)
    def event(*arguments: Any) -> str:
        try:
            return answer(*arguments)
        except (UserError, OSError) as problem:
            return html("problem", message=in_plain_words(problem))

    return event


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
    )


def ranking(champion: Champion, upload: dict[str, Any] | None, text: str) -> str:
    """The titles of a text, ranked for an uploaded thumbnail by both models."""
    fine_tuned = champion.matcher()
    image = read_upload(upload, fine_tuned)
    titles = read_titles(text)
    untouched = champion.matcher(untouched=True)
    lines = side_by_side(
        fine_tuned.rank_titles(image, titles), untouched.rank_titles(image, titles)
    )
    pairs = len(fine_tuned.own.cosines) if fine_tuned.own else 0
    return html("ranking", lines=lines, pairs=pairs, left_out=counted(fine_tuned.left_out))


def found(champion: Champion, words: str, upload: dict[str, Any] | None, top: int) -> str:
    """The channel's thumbnails nearest to words or to an uploaded picture."""
    if not is_blank(words) and upload:
        raise QuestionError("Words and a picture were given. Clear one of them.")
    if is_blank(words) and not upload:
        raise QuestionError("There is nothing to search for yet. Type words, or give a picture.")
    matcher, index, top = champion.matcher(), champion.index(), min(max(1, int(top)), MAX_FOUND)
    if upload:
        hits = search_picture(index, matcher, read_upload(upload, matcher), top)
    else:
        hits = search_words(index, matcher, words, top)
    left_out = counted({**champion.gone(), **hits.left_out})
    return html("found", hits=[(_shown(hit, matcher), hit) for hit in hits], left_out=left_out)


def _shown(hit: Hit, matcher: Matcher) -> str | None:
    """A found picture as a `data:` address; None if its file is gone or damaged."""
    try:
        image = matcher.read_picture(hit.image)
    except PictureError:
        return None
    image.thumbnail(FOUND)
    return data_uri(as_jpeg(image))


def report(champion: Champion) -> str:
    """The report of the version in use."""
    version = champion.version()
    path = f"{PurePosixPath(version.model.kept_at(champion.workspace) or '').parent}/report.html"
    try:
        page = champion.workspace.read(path).decode()
    except FileNotFoundError:
        raise QuestionError(
            f"The report of version {version.number} is no longer there "
            f"({champion.workspace}/{path}). Train again: only what is missing is made."
        ) from None
    return html("report", number=version.number, page=page)


def choose(champion: Champion) -> tuple[list[tuple[Image.Image, str]], list[Example]]:
    """What the picker shows, and the videos behind it; a picture that is gone is left out.

    Raises:
        gr.Error: there is no champion whose channel it could be.
    """
    shown, examples = [], []
    try:
        for example in champion.choices():
            with suppress(OSError, BadThumbnailError):
                shown.append((_preview(champion.workspace, example), example.title))
                examples.append(example)
    except NoModelError as problem:
        raise gr.Error(escape(str(problem))) from None
    return shown, examples


def _preview(workspace: Workspace, example: Example) -> Image.Image:
    image = load_image(workspace, example)
    image.thumbnail(PREVIEW)
    return image


def build_page(workspace: Workspace, registry: Registry) -> gr.Blocks:
    """The page of one channel."""
    champion = Champion(workspace, registry)
    channel = registry.identity.called
    with gr.Blocks(
        title=f"thumbtune · {channel}", analytics_enabled=False, fill_width=True
    ) as page:
        head = gr.HTML(apply_default_css=False)
        page.load(told(lambda: header(champion)), None, head, **RAW)
        with gr.Tab("Match titles"):
            _match_tab(champion)
        with gr.Tab("Search thumbnails"):
            _search_tab(champion)
        with gr.Tab("Report") as tab:
            shown = gr.HTML(apply_default_css=False)
            tab.select(told(lambda: report(champion)), None, shown, **RAW)
    return page


def _upload(label: str, name: str) -> gr.Image:
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


def _match_tab(champion: Champion) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            upload = _upload("Thumbnail", "thumbnail")
            with gr.Accordion("Or choose one of the channel’s", open=False) as picker:
                pictures = gr.Gallery(
                    columns=3,
                    allow_preview=False,
                    show_label=False,
                    interactive=False,
                    buttons=[],
                    elem_id="picker",
                    format="jpeg",
                )
            text = gr.Textbox(
                label="Title ideas, one a line", lines=6, max_lines=14, placeholder=PLACEHOLDER
            )
            button = gr.Button("Match", variant="primary")
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(html("hint", message=MATCH_HINT), apply_default_css=False)
    offered = gr.State([])
    picker.expand(lambda: choose(champion), None, [pictures, offered], **RAW)

    def pick(examples: list[Example], title: str, chosen: gr.SelectData) -> tuple[Any, str]:
        example = examples[chosen.index]
        try:
            return load_image(champion.workspace, example), title or example.title
        except (OSError, BadThumbnailError):
            raise gr.Error("This thumbnail is no longer there. Choose another one.") from None

    pictures.select(pick, [offered, text], [upload, text], **RAW)
    ask = told(lambda *question: ranking(champion, *question))
    button.click(ask, [upload, text], answer, **RAW, **ONE_AT_A_TIME)


def _search_tab(champion: Champion) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            words = gr.Textbox(
                label="Words", placeholder="a red robot in the snow", max_length=MAX_CHARACTERS
            )
            with gr.Accordion("Or search by a picture", open=False):
                upload = _upload("Picture", "picture")
            top = gr.Slider(1, MAX_FOUND, 12, step=1, label="How many")
            button = gr.Button("Search", variant="primary")
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(html("hint", message=SEARCH_HINT), apply_default_css=False)
    ask = told(lambda *question: found(champion, *question))
    for event in (words.submit, button.click):
        event(ask, [words, upload, top], answer, **RAW, **ONE_AT_A_TIME)


def _theme() -> gr.themes.Base:
    """The colours of the report, and fonts that every system has."""
    theme = gr.themes.Default(
        primary_hue="emerald",
        secondary_hue="emerald",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    return theme.set(
        color_accent="#1b7f4b",
        button_primary_background_fill="#1b7f4b",
        button_primary_background_fill_hover="#166b3f",
        button_primary_text_color="white",
    )


def serve(
    workspace: Workspace,
    registry: Registry,
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str = "",
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve the page until the process is told to stop.

    Args:
        root_path: below which a reverse proxy serves it, such as /thumbtune; the proxy takes it
            away from what it hands on.
        allowed_hosts: names by which the proxy is asked.

    Raises:
        AddressError: the port is taken, the host is not this machine, or the path or a name is
            none.
    """
    root_path, names = check_address(host, port, root_path, allowed_hosts)
    only_by_name = Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are removed
    page = build_page(workspace, registry)
    page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        app_kwargs={"middleware": [only_by_name]},
        share=False,
        max_file_size=MAX_UPLOAD,
        theme=_theme(),
        css_paths=Path(__file__).parent / "templates" / "page.css",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"{page.local_url} – stop with Ctrl-C", flush=True)
    page.block_thread()
