"""The tab in which titles and thumbnails are matched."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from PIL import Image

from thumbtune.app.in_use import Champion, QuestionError, check_titles
from thumbtune.app.parts import (
    FOUND,
    ONE_AT_A_TIME,
    PREVIEW,
    QUIET,
    RAW,
    choosing,
    gr,
    html,
    or_toast,
    read_upload,
    resized,
    small,
    told,
)
from thumbtune.data.looks import are_nearly_the_same, look_at
from thumbtune.data.thumbnails import BadThumbnailError, Example, load_image
from thumbtune.reporting.figures import as_jpeg, fit_sheet
from thumbtune.reporting.report import data_uri
from thumbtune.store.workspace import fingerprint
from thumbtune.text.titles import is_blank
from thumbtune.use.comparing import as_csv, compare
from thumbtune.use.indexing import NoIndexError
from thumbtune.use.matching import Fit, Matcher, NoModelError, PictureError, counted
from thumbtune.use.occlusion import drivers, lit
from thumbtune.use.verdicts import answer_of

MAX_PICTURES = 6

PLACEHOLDER = (
    "I Built a Robot in the Woods\nCan a Robot Survive in the Woods?\nMy Robot, One Year Later"
)

MATCH_HINT = (
    "Give a thumbnail and some title ideas: they are ranked here. Or press “Show me an example”."
)

Uploads = list[dict[str, Any]] | None
"""What Gradio's gallery hands on."""

OUTDATED = "() => window.thumbtune?.outdated()"
"""An answer to what is no longer asked is not taken for one."""

DRIVEN = "() => window.thumbtune?.driven()"
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


class Drawing(NamedTuple):
    """What a grid is drawn from, once it is shown."""

    pictures: list[Image.Image]
    """Small ones: a visitor's session keeps them."""
    rows: list[tuple[str, list[float]]]
    """A title, and a percentile for each picture."""


class Answered(NamedTuple):
    """A part of the page, and what can be asked of it further."""

    html: str
    drawing: Drawing | None = None
    picture: Image.Image | None = None
    """The one that titles were ranked for."""
    why: str = ""
    """What was told of an earlier answer is gone."""


def answered(champion: Champion, uploads: Uploads, text: str) -> Answered:
    """The titles of a text, ranked for one thumbnail or held against several."""
    pictures = read_uploads(uploads, champion.matcher())
    titles = read_titles(text)
    if len(pictures) == 1:
        return Answered(ranking(champion, pictures[0], titles), picture=pictures[0])
    return grid(champion, pictures, titles)


def grid(champion: Champion, pictures: list[Image.Image], titles: Sequence[str]) -> Answered:
    """Each title held against each thumbnail."""
    embedded = champion.embed_images(pictures), titles, champion.embed_titles(titles)
    comparison = compare(champion.matcher(), *embedded)
    names = [f"thumbnail {number}" for number in range(1, len(pictures) + 1)]
    small = [resized(picture, PREVIEW) for picture in pictures]
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
        picture=small(image, PREVIEW),
        answer=answer_of([line.fine_tuned for line in lines], fine_tuned.close),
        lines=lines,
        pairs=pairs,
        close=fine_tuned.close,
        used={title: champion.used_before(title) for title in titles},
        nearest=nearest(champion, image),
        views=champion.fit_and_views(),
        left_out=counted(fine_tuned.left_out),
    )


def why(champion: Champion, picture: Image.Image | None, title: str) -> str:
    """What drives the fit of a title that was ranked."""
    if picture is None:
        raise QuestionError("There is no answer yet. Press Match.")
    [asked] = check_titles([title])
    found = drivers(champion.matcher(), picture, asked)
    return html("why", asked=uuid4().hex, found=found, picture=data_uri(lit(picture, found.parts)))


class Near(NamedTuple):
    """A thumbnail of the channel that is near to a new one."""

    picture: str
    """As a `data:` address."""
    title: str
    published: str
    nearly_the_same: bool
    watched: str


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
            picture = small(own, FOUND)
            near.append(Near(picture, hit.title, about.published, same, about.watched))
    return near


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
    there = [(resized(picture, PREVIEW), example) for picture, example in offered(champion)]
    shown = [(picture, example.title) for picture, example in there]
    return shown, [example for _, example in there]


class Chosen(NamedTuple):
    """What a choice puts into the form."""

    uploads: list[str]
    text: str
    filled: str
    """The text again: what was filled in is replaced by the next choice, what was typed stays."""


class MatchForm(NamedTuple):
    """Where what is asked stands."""

    uploads: gr.Gallery
    text: gr.Textbox
    filled: gr.State


def fill_in(
    name: str, picture: Image.Image, titles: str, uploads: Uploads, text: str, filled: str
) -> Chosen:
    """Choose one of the channel's thumbnails, in the place of one that was chosen before.

    Args:
        name: of the picture.
        titles: that go with it.
        uploads: pictures that are there.
        text: that stands there.
        filled: what an earlier choice has put there.
    """
    file = Path(os.environ["GRADIO_TEMP_DIR"]) / f"{CHOSEN}{fingerprint(name)[:16]}.png"
    picture.save(file)
    given = [each["image"] for each in uploads or []]
    kept = [each["path"] for each in given if not Path(each["path"]).name.startswith(CHOSEN)]
    if is_blank(text) or text == filled:
        text = filled = titles
    return Chosen([*kept, str(file)], text, filled)


CHOSEN = "of-the-channel-"
"""How files of pictures begin that were chosen, not given."""


def example_of(champion: Champion) -> Chosen:
    """A thumbnail of the channel with its own title between two others, to see what comes of it."""
    there = list(islice(offered(champion), 3))
    if not there:
        raise gr.Error("None of the channel’s thumbnails is there. Give one of yours.")
    (picture, first), *others = there
    titles = [example.title for _, example in others]
    titles.insert(1, first.title)
    return fill_in(first.id, picture, "\n".join(titles), [], "", "")


def _picture_of(champion: Champion, example: Example) -> Image.Image:
    try:
        return load_image(champion.workspace, example)
    except (OSError, BadThumbnailError):
        raise gr.Error("This thumbnail is no longer there. Choose another one.") from None


def match_tab(champion: Champion) -> MatchForm:
    """Add the tab; what is asked in it."""
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
            answer = choosing("ranking", MATCH_HINT)
            driven = gr.HTML(apply_default_css=False, elem_id="why")
            picture = gr.HTML(apply_default_css=False, elem_id="drawing")
            gr.HTML(html("earlier"), apply_default_css=False)
    choices, filled, drawn, asked_of = gr.State([]), gr.State(""), gr.State(), gr.State()
    picker.expand(lambda: choose(champion), None, [pictures, choices], **RAW)

    def pick(
        examples: list[Example], uploads: Uploads, text: str, filled: str, chosen: gr.SelectData
    ) -> Chosen:
        example = examples[chosen.index]
        picture = _picture_of(champion, example)
        return fill_in(example.id, picture, example.title, uploads, text, filled)

    form = MatchForm(uploads, text, filled)
    pictures.select(pick, [choices, *form], [*form], **RAW)
    check = told(lambda given: check_uploads(champion, given))
    uploads.change(check, uploads, wrong, **RAW, **ONE_AT_A_TIME)
    for event in (uploads.change, text.change):
        event(None, js=OUTDATED)

    ask = told(lambda *question: answered(champion, *question), Answered)
    shown = show.click(lambda: example_of(champion), None, [*form], **RAW)
    for asked in (button.click, shown.success):
        shows = [answer, drawn, asked_of, driven]
        given = asked(ask, [uploads, text], shows, **RAW, **ONE_AT_A_TIME)
        given.then(None, js=ANSWERED).then(draw, drawn, picture, **QUIET)

    def ask_why(picture: Image.Image | None, chosen: gr.SelectData) -> str:
        return why(champion, picture, chosen.value)

    told_why = answer.select(or_toast(ask_why), asked_of, driven, **RAW, **ONE_AT_A_TIME)
    told_why.then(None, js=DRIVEN)
    return form
