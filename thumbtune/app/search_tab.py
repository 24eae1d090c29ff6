"""The tab in which the channel's thumbnails are searched."""

from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image

from thumbtune.app.in_use import MAX_CHARACTERS, Champion, QuestionError
from thumbtune.app.match_tab import MatchForm, fill_in
from thumbtune.app.parts import (
    ENLARGED,
    FOUND,
    LARGE,
    ONE_AT_A_TIME,
    RAW,
    choosing,
    gr,
    html,
    or_toast,
    read_upload,
    small,
    told,
    upload_of,
)
from thumbtune.text.titles import is_blank
from thumbtune.use.indexing import Hit, Hits, search_picture, search_words
from thumbtune.use.matching import Matcher, PictureError, counted
from thumbtune.use.verdicts import FAR

MAX_FOUND = 48

SEARCH_HINT = (
    "Say what a thumbnail shows, or give a picture: the channel’s nearest ones appear here."
)


def found(champion: Champion, words: str, upload: dict[str, Any] | None, top: int) -> str:
    """The channel's thumbnails nearest to words or to an uploaded picture."""
    if not is_blank(words) and upload:
        raise QuestionError("Words and a picture were given. Clear one of them.")
    if is_blank(words) and not upload:
        raise QuestionError("There is nothing to search for yet. Type words, or give a picture.")
    matcher, index = champion.matcher(), champion.index()
    if upload:
        picture = read_upload(upload, matcher)
        return _page(champion, search_picture(index, matcher, picture, at_most(top)))
    hits = search_words(index, matcher, words, at_most(top))
    far = {hit.id for hit in hits if matcher.percentile(hit.cosine) < FAR}
    return _page(champion, hits, far)


def more_like(champion: Champion, video_id: str, top: int) -> str:
    """The channel's thumbnails nearest to one of them, which comes first."""
    _, picture = shown_alone(champion, video_id)
    return _page(
        champion, search_picture(champion.index(), champion.matcher(), picture, at_most(top))
    )


def at_most(top: int) -> int:
    """How many are shown."""
    return min(max(1, int(top)), MAX_FOUND)


def shown_alone(champion: Champion, video_id: str) -> tuple[str, Image.Image]:
    """The title and the picture of a video of the channel.

    Raises:
        PictureError: it is no longer there.
    """
    entry = champion.index().entry(video_id)
    if entry is None:
        raise PictureError("This thumbnail is no longer there. Search again.")
    return entry.title, champion.matcher().read_picture(entry.file(champion.workspace))


def _page(champion: Champion, hits: Hits, far: set[str] | None = None) -> str:
    matcher = champion.matcher()
    return html(
        "found",
        hits=[(_shown(hit, matcher), hit, champion.about(hit.id)) for hit in hits],
        percentiles={hit.id: matcher.percentile(hit.cosine) for hit in hits if far is not None},
        far=far or set(),
        left_out=counted({**champion.gone(), **hits.left_out}),
    )


def _shown(hit: Hit, matcher: Matcher) -> str | None:
    """A found picture as a `data:` address; None if its file is gone or damaged."""
    try:
        image = matcher.read_picture(hit.image)
    except PictureError:
        return None
    return small(image, FOUND)


def enlarged(champion: Champion, video_id: str) -> str:
    """A picture of the channel, as large as it is."""
    title, picture = shown_alone(champion, video_id)
    shown, about = small(picture, LARGE), champion.about(video_id)
    return html("large", id=video_id, picture=shown, title=title, about=about)


class SearchTab(NamedTuple):
    """What other parts of the page have to do with."""

    words: gr.Textbox
    connect: Callable[[gr.HTML], None]
    """Makes the buttons of a part of the page do what they say of a thumbnail."""


def search_tab(champion: Champion, match: MatchForm, large: gr.HTML, tabs: gr.Tabs) -> SearchTab:
    """Add the tab.

    Args:
        match: what a thumbnail that was found can be put into.
        large: where a thumbnail is looked at alone.
        tabs: of the page.
    """
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            words = gr.Textbox(
                label="Words",
                placeholder="a red robot in the snow",
                max_length=MAX_CHARACTERS,
                elem_id="words",
            )
            with gr.Accordion("Or search by a picture", open=False):
                upload = upload_of("Picture", "picture")
            button = gr.Button("Search", variant="primary", elem_id="search")
            top = gr.Slider(1, MAX_FOUND, 12, step=1, label="How many")
        with gr.Column(scale=7, min_width=320):
            answer = choosing("found", SEARCH_HINT)
    ask = told(lambda *question: found(champion, *question))
    for event in (words.submit, button.click):
        event(ask, [words, upload, top], answer, **RAW, **ONE_AT_A_TIME)

    def chosen(given: Any, text: str, filled: str, top: int, what: gr.SelectData) -> dict[Any, Any]:
        match what.index:
            case "like":
                found_like = more_like(champion, what.value, top)
                return {answer: found_like, large: "", tabs: gr.Tabs(selected="search")}
            case "enlarge":
                return {large: enlarged(champion, what.value)}
            case "at":
                return {large: enlarged(champion, champion.map().nearest(*what.value).id)}
        title, picture = shown_alone(champion, what.value)
        filled_in = fill_in(what.value, picture, title, given, text, filled)
        to_match = [*filled_in, gr.Tabs(selected="match"), ""]
        return dict(zip((*match, tabs, large), to_match, strict=True))

    inputs = [*match, top]
    outputs = [answer, large, *match, tabs]

    def connect(part: gr.HTML) -> None:
        acted = part.select(or_toast(chosen), inputs, outputs, **RAW, **ONE_AT_A_TIME)
        acted.then(None, js=ENLARGED)

    connect(answer)
    connect(large)
    return SearchTab(words, connect)
