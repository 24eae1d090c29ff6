"""The tab in which the channel's thumbnails are searched."""

from typing import Any

from thumbtune.app.in_use import MAX_CHARACTERS, Champion, QuestionError
from thumbtune.app.parts import (
    FOUND,
    ONE_AT_A_TIME,
    RAW,
    gr,
    html,
    read_upload,
    small,
    told,
    upload_of,
)
from thumbtune.text.titles import is_blank
from thumbtune.use.indexing import Hit, search_picture, search_words
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
    return small(image, FOUND)


def search_tab(champion: Champion) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            words = gr.Textbox(
                label="Words", placeholder="a red robot in the snow", max_length=MAX_CHARACTERS
            )
            with gr.Accordion("Or search by a picture", open=False):
                upload = upload_of("Picture", "picture")
            button = gr.Button("Search", variant="primary", elem_id="search")
            top = gr.Slider(1, MAX_FOUND, 12, step=1, label="How many")
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(
                html("hint", message=SEARCH_HINT), apply_default_css=False, elem_id="found"
            )
    ask = told(lambda *question: found(champion, *question))
    for event in (words.submit, button.click):
        event(ask, [words, upload, top], answer, **RAW, **ONE_AT_A_TIME)
