"""The page of `thumbtune web`: match titles with a thumbnail, search thumbnails, read the report.

Titles are text of strangers. They reach the page through Jinja's escaping and a plain `gr.HTML`;
in an `html_template` of Gradio's, `${…}` in a title would run as JavaScript.
"""

import atexit
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, wraps
from html import escape
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote
from uuid import uuid4

from fastapi.middleware import Middleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from jinja2 import Environment
from PIL import Image

from thumbtune.app.address import check_address
from thumbtune.app.in_use import MAX_CHARACTERS, Champion, QuestionError, check_titles
from thumbtune.channel.registry import Registry
from thumbtune.data.looks import are_nearly_the_same, look_at
from thumbtune.data.thumbnails import BadThumbnailError, Example, load_image
from thumbtune.errors import UserError
from thumbtune.reporting.figures import as_jpeg, fit_sheet
from thumbtune.reporting.report import data_uri, html_templates
from thumbtune.store.disk import in_plain_words
from thumbtune.store.workspace import Workspace, fingerprint
from thumbtune.text.titles import is_blank
from thumbtune.use.comparing import as_csv, compare
from thumbtune.use.indexing import (
    Hit,
    NoIndexError,
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
from thumbtune.use.uploads import reduced
from thumbtune.use.verdicts import FAR, answer_of, in_words

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # both are read while Gradio is imported
os.environ["GRADIO_TEMP_DIR"] = mkdtemp(prefix="thumbtune-")

import gradio as gr

atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

T = TypeVar("T")

MAX_UPLOAD = "64mb"  # what is larger than a thumbnail may be is made smaller
MAX_PICTURES = 6
MAX_FOUND = 48
PREVIEW = (320, 180)  # pixels, of thumbnails that are offered, and of the one that is asked about
FOUND = (460, 259)  # pixels, of a thumbnail that was found

PLACEHOLDER = (
    "I Built a Robot in the Woods\nCan a Robot Survive in the Woods?\nMy Robot, One Year Later"
)
MATCH_HINT = (
    "Give a thumbnail and some title ideas: they are ranked here. Or press “Show me an example”."
)
SEARCH_HINT = (
    "Say what a thumbnail shows, or give a picture: the channel’s nearest ones appear here."
)

RAW: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress": "minimal"}
"""Of every event: Gradio hands on an upload as it came, so that it is checked here and once."""

QUIET: dict[str, Any] = {**RAW, "show_progress": "hidden"}

Uploads = list[dict[str, Any]] | None
"""What Gradio's gallery hands on."""

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


SCRIPT = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
OUTDATED = "() => window.thumbtune?.outdated()"
"""An answer to what is no longer asked is not taken for one."""

ANSWERED = "() => window.thumbtune?.answered()"


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
    """An uploaded picture, read as those of the training; a larger one is made smaller first.

    Raises:
        QuestionError: there is none. PictureError: it is of no use.
    """
    if not upload or not upload.get("path"):
        raise QuestionError("There is no picture yet. Drop or paste one.")
    data = Path(upload["path"]).read_bytes()
    return matcher.read_picture(reduced(data, matcher.thumbnails.max_megapixels))


def read_uploads(uploads: Uploads, matcher: Matcher) -> list[Image.Image]:
    """Uploaded pictures, each as `read_upload` reads it.

    Raises:
        QuestionError: there is none, or there are too many.
        PictureError: one is of no use; of several its number is told.
    """
    if not uploads:
        raise QuestionError("There is no thumbnail yet. Drop or paste one, or choose one below it.")
    if len(uploads) > MAX_PICTURES:
        raise QuestionError(
            f"These are {len(uploads)} thumbnails; {MAX_PICTURES} can be compared at a time. "
            "Remove some."
        )
    pictures = []
    for number, upload in enumerate(uploads, 1):
        try:
            pictures.append(read_upload(upload["image"], matcher))
        except PictureError as error:
            which = f"Thumbnail {number}, {upload['image'].get('orig_name') or ''}: "
            raise PictureError(f"{which if len(uploads) > 1 else ''}{error}") from None
    return pictures


def check_uploads(champion: Champion, uploads: Uploads) -> str:
    """Empty, or what is wrong with pictures, as soon as they are given."""
    if uploads:
        read_uploads(uploads, champion.matcher())
    return ""


def side_by_side(fine_tuned: Sequence[Fit], untouched: Sequence[Fit]) -> list[Line]:
    """Both models' answers on the same titles, in the order of the fine-tuned one."""
    places = {fit.title: (place, fit) for place, fit in enumerate(untouched, 1)}
    return [Line(fit.title, fit, places[fit.title][1], places[fit.title][0]) for fit in fine_tuned]


def share_in_words(percentile: float) -> str:
    """How many of the channel's own pairs a percentile is; only all is called all."""
    if percentile >= 100:
        return "better than all"
    if percentile <= 0:
        return "not better than any"
    return f"better than {min(99, max(1, round(percentile)))} %"


@cache
def _templates() -> Environment:
    environment = html_templates("thumbtune.app")
    environment.filters["in_words"] = in_words
    environment.filters["share_in_words"] = share_in_words
    return environment


def html(template: str, **values: Any) -> str:
    """A part of the page; every value is escaped."""
    return _templates().get_template(f"{template}.html.jinja").render(**values)


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


class Drawing(NamedTuple):
    """What a grid is drawn from, once it is shown."""

    pictures: list[Image.Image]
    """Small ones: a visitor's session keeps them."""
    rows: list[tuple[str, list[float]]]
    """A title, and a percentile for each picture."""


class Answered(NamedTuple):
    """A part of the page, and what can be drawn of it."""

    html: str
    drawing: Drawing | None = None


def answered(champion: Champion, uploads: Uploads, text: str) -> Answered:
    """The titles of a text, ranked for one thumbnail or held against several."""
    pictures = read_uploads(uploads, champion.matcher())
    titles = read_titles(text)
    if len(pictures) == 1:
        return Answered(ranking(champion, pictures[0], titles))
    return grid(champion, pictures, titles)


def grid(champion: Champion, pictures: list[Image.Image], titles: Sequence[str]) -> Answered:
    """Each title held against each thumbnail."""
    embedded = champion.embed_images(pictures), titles, champion.embed_titles(titles)
    comparison = compare(champion.matcher(), *embedded)
    names = [f"thumbnail {number}" for number in range(1, len(pictures) + 1)]
    small = [_resized(picture, PREVIEW) for picture in pictures]
    page = html(
        "grid",
        asked=uuid4().hex,
        channel=champion.registry.identity.called,
        pictures=[data_uri(as_jpeg(picture)) for picture in small],
        comparison=comparison,
        table=f"data:text/csv;charset=utf-8,{quote(as_csv(comparison, names))}",
        copied=as_csv(comparison, names, "\t"),
        left_out=counted(champion.matcher().left_out),
    )
    rows = [(row.title, [cell.percentile for cell in row.cells]) for row in comparison.rows]
    return Answered(page, Drawing(small, rows))


def draw(drawing: Drawing | None) -> str:
    """A grid as a picture to keep; it takes longer than the answer, so it comes after it."""
    if drawing is None:
        return ""
    return html("drawing", asked=uuid4().hex, picture=data_uri(fit_sheet(*drawing)))


def ranking(champion: Champion, image: Image.Image, titles: Sequence[str]) -> str:
    """Titles, ranked for a thumbnail by both models."""
    fine_tuned, untouched = champion.matcher(), champion.matcher(untouched=True)
    lines = side_by_side(
        fine_tuned.rank_titles(image, titles), untouched.rank_titles(image, titles)
    )
    pairs = len(fine_tuned.own.cosines) if fine_tuned.own else 0
    return html(
        "ranking",
        asked=uuid4().hex,  # an answer that is the same again is shown anew
        picture=_small(image, PREVIEW),
        answer=answer_of([line.fine_tuned for line in lines], fine_tuned.close),
        lines=lines,
        pairs=pairs,
        close=fine_tuned.close,
        used={title: champion.used_before(title) for title in titles},
        nearest=nearest(champion, image),
        left_out=counted(fine_tuned.left_out),
    )


class Near(NamedTuple):
    """A thumbnail of the channel that is near to a new one."""

    picture: str
    """As a `data:` address."""
    title: str
    published: str
    nearly_the_same: bool


def nearest(champion: Champion, image: Image.Image, top: int = 3) -> list[Near]:
    """The channel's thumbnails most like a new one; none where there is no index."""
    try:
        index = champion.index()
    except NoIndexError:
        return []
    matcher, views = champion.matcher(), look_at(image)
    near = []
    for hit in index.search(champion.embed_images([image])[0], top):
        with suppress(PictureError):
            own = matcher.read_picture(hit.image)
            same = are_nearly_the_same(views, look_at(own))
            about = champion.about(hit.id)
            near.append(Near(_small(own, FOUND), hit.title, about.published, same))
    return near


def _small(image: Image.Image, size: tuple[int, int]) -> str:
    """A picture as a `data:` address, no larger than a size in pixels."""
    return data_uri(as_jpeg(_resized(image, size)))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    small = image.copy()
    small.thumbnail(size)
    return small


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
    return html(
        "found",
        hits=[(_shown(hit, matcher), hit, champion.about(hit.id)) for hit in hits],
        far={hit.id for hit in hits if not upload and matcher.percentile(hit.cosine) < FAR},
        left_out=counted({**champion.gone(), **hits.left_out}),
    )


def _shown(hit: Hit, matcher: Matcher) -> str | None:
    """A found picture as a `data:` address; None if its file is gone or damaged."""
    try:
        image = matcher.read_picture(hit.image)
    except PictureError:
        return None
    return _small(image, FOUND)


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


def offered(champion: Champion) -> Iterator[tuple[Image.Image, Example]]:
    """The videos that can be chosen, with their pictures; one whose picture is gone is left out.

    Raises:
        gr.Error: there is no champion whose channel it could be.
    """
    try:
        examples = champion.choices()
    except NoModelError as problem:
        raise gr.Error(escape(str(problem))) from None
    for example in examples:
        try:
            picture = load_image(champion.workspace, example)
        except (OSError, BadThumbnailError):
            continue
        yield picture, example


def choose(champion: Champion) -> tuple[list[tuple[Image.Image, str]], list[Example]]:
    """What the picker shows, and the videos behind it."""
    there = [(_resized(picture, PREVIEW), example) for picture, example in offered(champion)]
    shown = [(picture, example.title) for picture, example in there]
    return shown, [example for _, example in there]


def build_page(workspace: Workspace, registry: Registry) -> gr.Blocks:
    """The page of one channel."""
    champion = Champion(workspace, registry)
    channel = registry.identity.called
    with gr.Blocks(
        title=f"thumbtune · {channel}", analytics_enabled=False, fill_width=True
    ) as page:
        head = gr.HTML(apply_default_css=False)
        page.load(told(lambda: header(champion)), None, head, js=SCRIPT, **RAW)
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


class Chosen(NamedTuple):
    """What a choice puts into the form."""

    uploads: list[str]
    text: str
    filled: str
    """The text again: what was filled in is replaced by the next choice, what was typed stays."""


def fill_in(
    champion: Champion, example: Example, titles: str, uploads: Uploads, text: str, filled: str
) -> Chosen:
    """Choose one of the channel's thumbnails, in the place of one that was chosen before.

    Args:
        titles: that go with it.
        uploads: pictures that are there.
        text: that stands there.
        filled: what an earlier choice has put there.
    """
    file = Path(os.environ["GRADIO_TEMP_DIR"]) / f"{CHOSEN}{fingerprint(example.id)[:16]}.png"
    try:
        load_image(champion.workspace, example).save(file)
    except (OSError, BadThumbnailError):
        raise gr.Error("This thumbnail is no longer there. Choose another one.") from None
    given = [each["image"] for each in uploads or []]
    kept = [each["path"] for each in given if not Path(each["path"]).name.startswith(CHOSEN)]
    if is_blank(text) or text == filled:
        text = filled = titles
    return Chosen([*kept, str(file)], text, filled)


CHOSEN = "of-the-channel-"
"""How files of pictures begin that were chosen, not given."""


def example_of(champion: Champion) -> Chosen:
    """A thumbnail of the channel with its own title between two others, to see what comes of it."""
    examples = [example for _, example in islice(offered(champion), 3)]
    if not examples:
        raise gr.Error("None of the channel’s thumbnails is there. Give one of yours.")
    first, *others = examples
    titles = [example.title for example in others]
    return fill_in(champion, first, "\n".join([*titles[:1], first.title, *titles[1:]]), [], "", "")


def _match_tab(champion: Champion) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            uploads = gr.Gallery(
                label="Thumbnails, up to six",
                elem_id="thumbnail",
                sources=["upload", "clipboard"],
                file_types=["image"],
                type="filepath",
                format="png",  # without loss
                interactive=True,
                columns=3,
                fit_columns=False,
                object_fit="contain",
                height=260,
                allow_preview=False,
                buttons=[],
            )
            wrong = gr.HTML(apply_default_css=False)
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
            button = gr.Button("Match", variant="primary", elem_id="match")
            show = gr.Button("Show me an example")
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(
                html("hint", message=MATCH_HINT), apply_default_css=False, elem_id="ranking"
            )
            picture = gr.HTML(apply_default_css=False, elem_id="drawing")
            gr.HTML(html("earlier"), apply_default_css=False)
    choices, filled, drawn = gr.State([]), gr.State(""), gr.State()
    picker.expand(lambda: choose(champion), None, [pictures, choices], **RAW)

    def pick(
        examples: list[Example], uploads: Uploads, text: str, filled: str, chosen: gr.SelectData
    ) -> Chosen:
        example = examples[chosen.index]
        return fill_in(champion, example, example.title, uploads, text, filled)

    form = [uploads, text, filled]
    pictures.select(pick, [choices, *form], form, **RAW)
    check = told(lambda given: check_uploads(champion, given))
    uploads.change(check, uploads, wrong, **RAW, **ONE_AT_A_TIME)
    for event in (uploads.change, text.change):
        event(None, js=OUTDATED)

    ask = told(lambda *question: answered(champion, *question), Answered)
    shown = show.click(lambda: example_of(champion), None, form, **RAW)
    for asked in (button.click, shown.success):
        given = asked(ask, [uploads, text], [answer, drawn], **RAW, **ONE_AT_A_TIME)
        given.then(None, js=ANSWERED).then(draw, drawn, picture, **QUIET)


def _search_tab(champion: Champion) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            words = gr.Textbox(
                label="Words", placeholder="a red robot in the snow", max_length=MAX_CHARACTERS
            )
            with gr.Accordion("Or search by a picture", open=False):
                upload = _upload("Picture", "picture")
            button = gr.Button("Search", variant="primary", elem_id="search")
            top = gr.Slider(1, MAX_FOUND, 12, step=1, label="How many")
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(
                html("hint", message=SEARCH_HINT), apply_default_css=False, elem_id="found"
            )
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
        button_primary_background_fill_dark="#1b7f4b",
        button_primary_background_fill_hover_dark="#166b3f",
        button_primary_text_color="white",
        body_text_color_subdued="#5c6778",
        body_text_color_subdued_dark="#9aa5b5",
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
