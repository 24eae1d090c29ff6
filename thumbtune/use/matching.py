"""Use of a model: how well does a title fit a thumbnail?

A bare cosine says little, since each model has its own range. So a title is held against what the
channel itself does: the pairs of its valid and test splits, which the model was not trained on,
and its titles.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer

from thumbtune.channel.registry import Registry, Version
from thumbtune.channel.source import last_part, short_name
from thumbtune.clip.features import head_of
from thumbtune.clip.models import find_model, load_clip
from thumbtune.clip.precision import precision_for
from thumbtune.clip.towers import Precision
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import (
    MAX_BYTES,
    TOO_LARGE,
    BadThumbnailError,
    Example,
    as_rgb,
    is_intact,
    letterbox,
    load_cropped,
    verify,
)
from thumbtune.errors import UserError
from thumbtune.learning.evaluation import (
    BLOCK,
    Embeddings,
    Prediction,
    embed_examples,
    embed_images,
    embed_titles,
)
from thumbtune.parameters import ThumbnailsParameters, WantedPrecision
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Workspace
from thumbtune.text.titles import is_blank, same_title


class Fit(BaseModel):
    """How well a title fits a thumbnail."""

    model_config = ConfigDict(frozen=True)

    title: str
    cosine: float
    """Of the title's and the picture's embeddings, -1 to 1."""
    percentile: float | None
    """Share, 0 to 100, of the channel's own pairs whose cosine is lower: 50 is like its typical
    pair. None if the model has no channel, as are the next two."""
    rank: int | None
    """Where the title would stand among the channel's own titles for this picture; 1 is best."""
    of: int | None
    """How many titles that ranking has, this one included."""


class PictureError(UserError, ValueError):
    """A picture cannot be used; the message says why, and what can."""


class TitleError(UserError, ValueError):
    """A title is empty, or there is none."""


class NoModelError(UserError, ValueError):
    """The channel has models, but the wanted one is not there; the message says what to do."""


class OwnPairs(NamedTuple):
    """What a title is held against."""

    cosines: Embeddings
    """Of the pairs that the model was not trained on, ascending; after a cross-fit of all pairs,
    each by a model that was not trained on it."""
    titles: dict[str, list[int]]
    """`same_title` of all titles of the channel → rows of their vectors, one for each spelling."""
    vectors: Embeddings
    """Unit vectors, shape (spellings, dimensions)."""
    fits: dict[str, float]
    """Id of a video → cosine of its own pair, by a model that has not learned from it."""
    missed_by: Callable[[], list[float]]
    """By how much the model preferred another title, of those pairs where it did."""


def read_picture(
    source: str | Path | bytes, max_megapixels: float = 20.0, crop_letterbox: bool = True
) -> Image.Image:
    """Read a picture as those of the training are read: checked, without its letterbox, RGB.

    Args:
        source: a JPEG, PNG, WebP or GIF file or its bytes, of at most 20 MB.

    Raises:
        PictureError: there is no such file, or it is of no use.
    """
    name = "picture" if isinstance(source, bytes) else f"picture {source}"
    try:
        image = verify(picture_bytes(source), max_megapixels)
    except OSError as error:
        raise PictureError(
            f"{name}: cannot be read ({error.strerror}). Give the path of a picture."
        ) from None
    except BadThumbnailError as error:
        raise PictureError(
            f"{name}: {error}. Give a JPEG, PNG, WebP or GIF of at most 20 MB and "
            f"{max_megapixels:g} megapixels."
        ) from None
    crop = letterbox(image) if crop_letterbox else None
    return image.crop(crop) if crop else image


def picture_bytes(source: str | Path | bytes) -> bytes:
    """A file's bytes, or those given.

    Raises:
        BadThumbnailError: they are more than 20 MB.
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        data = source
    else:
        with Path(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadThumbnailError(TOO_LARGE)
    return data


class Matcher:
    """A loaded model, and the channel that its cosines are held against, if it has one.

    Attributes:
        name: how people call it.
        model: embeds pictures and titles.
        fingerprint: of the model's weights.
        typical: lower quartile, median and upper quartile of the cosines of the channel's own
            pairs; None if the model has no channel.
        precision: of the channel's stored features.
        left_out: why pictures of the channel are not among the pairs → how many.
        close: a difference of two titles' cosines that is too small to tell which fits better: by
            less the model preferred a wrong title, in half of the channel's pairs where it did.
    """

    def __init__(
        self,
        name: str,
        model: SentenceTransformer,
        fingerprint: str,
        thumbnails: ThumbnailsParameters | None = None,
        own: OwnPairs | None = None,
        precision: Precision = "float32",
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.fingerprint = fingerprint
        self.thumbnails = thumbnails or ThumbnailsParameters()
        self.own = own
        self.precision = precision
        self.left_out = dict(left_out or {})
        self.typical: tuple[float, float, float] | None = None
        if own:
            low, median, high = np.percentile(own.cosines, (25, 50, 75)).tolist()
            self.typical = (low, median, high)

    @cached_property
    def close(self) -> float:
        """See the class; reckoned when it is first asked for."""
        gaps = self.own.missed_by() if self.own else []
        return float(np.median(gaps)) if gaps else 0.0

    @classmethod
    def of_model(cls, name: str) -> Self:
        """Any model: a folder, a hub id or `sample`. It has no channel.

        Raises:
            ModelNotFoundError, HubUnreachableError, NotAClipError: it cannot be had, or is no CLIP.
        """
        reference = find_model(name)
        return cls(name, load_clip(reference), reference.fingerprint)

    @classmethod
    def of_version(cls, workspace: Workspace, version: Version, untouched: bool = False) -> Self:
        """A version of a channel's model, or what it was trained from, on the version's channel.

        The channel's pictures and titles are read from the stored features, so that only the head
        is run; what is not stored is encoded. A picture that is gone by then is left out.

        Raises:
            NoModelError: the weights, the examples or all pictures of the version are gone.
        """
        reference = version.untouched if untouched else version.model
        asked = version.parameters
        name = f"{short_name(asked.source, asked.channel)}, version {version.number}"
        if untouched:
            name = f"{last_part(reference.name)}, untouched"
        model = _load(workspace, reference, version)
        examples = examples_of(workspace, version)
        set_trainable(model, asked.training.trainable)
        wanted = asked.features.precision
        unseen = _unseen(workspace, version, examples, untouched)
        left_out: dict[str, int] = {}
        try:
            own, precision = _own_pairs(workspace, examples, model, wanted, unseen)
        except (OSError, BadThumbnailError):
            examples, left_out = _readable(workspace, examples)
            if not left_out:  # something else is wrong
                raise
            _check_enough(workspace, version, examples, unseen)
            own, precision = _own_pairs(workspace, examples, model, wanted, unseen)
        fingerprint = reference.fingerprint
        return cls(name, model, fingerprint, asked.thumbnails, own, precision, left_out)

    def read_picture(self, source: str | Path | bytes) -> Image.Image:
        """Read a picture as those of this model's channel were read: see `read_picture`."""
        asked = self.thumbnails
        return read_picture(source, asked.max_megapixels, asked.crop_letterbox)

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Unit vectors of pictures, shape (images, dimensions)."""
        return embed_images(self.model, len(images), lambda row: as_rgb(images[row]))

    def embed_titles(self, titles: Sequence[str]) -> Embeddings:
        """Unit vectors of titles, shape (titles, dimensions).

        Raises:
            TitleError: a title is empty, or there is none.
        """
        if not titles:
            raise TitleError("titles: there is none. Give at least one.")
        for place, title in enumerate(titles, 1):
            if is_blank(title):
                raise TitleError(f"titles: number {place} of {len(titles)} is empty. Leave it out.")
        return embed_titles(self.model, titles)

    def score(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[Fit]:
        """How well each title fits its picture, in the given order.

        Raises:
            TitleError: a title is empty, or there is none.
        """
        titles = [title for _, title in pairs]
        vectors = self.embed_titles(titles)
        return self._fits(self.embed_images([image for image, _ in pairs]), titles, vectors)

    def rank_titles(self, image: Image.Image, titles: Sequence[str]) -> list[Fit]:
        """How well each title fits one picture, the best first.

        Raises:
            TitleError: a title is empty, or there is none.
        """
        vectors = self.embed_titles(titles)
        images = np.broadcast_to(self.embed_images([image]), vectors.shape)
        return sorted(self._fits(images, titles, vectors), key=lambda fit: -fit.cosine)

    def percentile(self, cosine: float) -> float:
        """The share, 0 to 100, of the channel's own pairs whose cosine is lower."""
        own = self.own.cosines if self.own else np.empty(0, np.float32)
        return 100 * int(np.searchsorted(own, cosine)) / max(1, len(own))

    def _fits(self, images: Embeddings, titles: Sequence[str], vectors: Embeddings) -> list[Fit]:
        rows = zip(images, titles, vectors, strict=True)
        return [self._fit(image, title, float(image @ vector)) for image, title, vector in rows]

    def _fit(self, image: Embeddings, title: str, cosine: float) -> Fit:
        if self.own is None:
            return Fit(title=title, cosine=cosine, percentile=None, rank=None, of=None)
        others = self.own.vectors @ image
        own = self.own.titles.get(same_title(title), [])  # it does not compete with itself
        others = np.delete(others, own)
        return Fit(
            title=title,
            cosine=cosine,
            percentile=self.percentile(cosine),
            rank=1 + int((others >= cosine).sum()),
            of=1 + len(others),
        )


def _load(workspace: Workspace, reference: ModelReference, version: Version) -> SentenceTransformer:
    if reference.kept_at(workspace) and not reference.is_there(workspace):
        raise NoModelError(
            f"The weights {reference.path} of version {version.number} are no longer there. "
            "Train again, or roll back to a version that has its weights."
        )
    return load_clip(reference, workspace)


def _own_pairs(
    workspace: Workspace,
    examples: Sequence[Example],
    model: SentenceTransformer,
    wanted: WantedPrecision,
    unseen: Mapping[str, Prediction | None],
) -> tuple[OwnPairs, Precision]:
    """What a title is held against, and the precision of its vectors.

    Args:
        unseen: see `_unseen`.
    """
    precision = precision_for(workspace, model, examples, wanted).precision
    reader, _ = head_of(workspace, model, examples, precision)
    titles = list(dict.fromkeys(example.title for example in examples))
    place = {title: row for row, title in enumerate(titles)}
    images, vectors = embed_examples(reader, workspace, examples, titles)
    own = vectors[[place[example.title] for example in examples]]
    spellings: defaultdict[str, list[int]] = defaultdict(list)
    for row, title in enumerate(titles):
        spellings[same_title(title)].append(row)
    now = (images * own).sum(axis=1)
    answers = [(row, unseen[each.id]) for row, each in enumerate(examples) if each.id in unseen]
    told = [answer for _, answer in answers if answer]
    itself = [row for row, answer in answers if answer is None]
    itself_ids = [examples[row].id for row in itself]
    fits = {answer.video_id: answer.similarity for answer in told}
    fits |= dict(zip(itself_ids, now[itself].tolist(), strict=True))
    behind = [answer.top_similarity - answer.similarity for answer in told if answer.rank > 1]
    looked_at = itself[:LOOKED_AT]
    own_rows = [spellings[same_title(examples[row].title)] for row in looked_at]
    missed = partial(_missed_by, images[looked_at], now[looked_at], own_rows, vectors)
    ascending = np.sort(np.array([*fits.values()], np.float32))
    pairs = OwnPairs(ascending, dict(spellings), vectors, fits, lambda: behind + missed())
    return pairs, precision


def _missed_by(
    images: Embeddings, cosines: Embeddings, own_rows: Sequence[list[int]], vectors: Embeddings
) -> list[float]:
    """By how much another title of the channel is nearer than the own one, where it is.

    Args:
        cosines: of each picture with its own title.
        own_rows: of each picture, where its own title is among the vectors.
    """
    gaps: list[float] = []
    for start in range(0, len(images), BLOCK):
        others = images[start : start + BLOCK] @ vectors.T
        for row, own in enumerate(own_rows[start : start + BLOCK]):
            others[row, own] = -1
        gap = others.max(axis=1) - cosines[start : start + BLOCK]
        gaps += gap[gap > 0].tolist()
    return gaps


LOOKED_AT = 2000
"""Pairs that are ranked among all titles to see how close its mistakes are; of 100,000 videos all
would take a minute."""


def _readable(
    workspace: Workspace, examples: Sequence[Example]
) -> tuple[list[Example], dict[str, int]]:
    """The examples whose picture can be read, and why the others cannot → how many."""
    reasons = [unreadable(workspace, example.image) for example in examples]
    there = [row for row, reason in zip(examples, reasons, strict=True) if not reason]
    return there, dict(Counter(filter(None, reasons)))


def unreadable(workspace: Workspace, image: str) -> str:
    """Why a stored picture cannot be read; empty if it can."""
    try:
        file = workspace.place(image)
        if file.exists() and not is_intact(workspace, image):
            return "picture damaged"
        load_cropped(file, None)
    except OSError:
        return "picture gone"
    except BadThumbnailError:
        return "picture damaged"
    return ""


def counted(left_out: Mapping[str, int]) -> str:
    """What was left out, in words, such as "2 gone, 1 changed"."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _unseen(
    workspace: Workspace, version: Version, examples: Sequence[Example], untouched: bool
) -> dict[str, Prediction | None]:
    """Videos that the model has not learned from → the answer if another model is to give it.

    After a cross-fit these are all; so they are of the untouched model, which tells them itself.
    """
    answers = version.answers
    if answers and not untouched and answers.is_whole(workspace):
        told = workspace.read_table(answers, Prediction)
        return {answer.video_id: answer for answer in told}
    learned = set() if answers else set(version.learned_from)
    return {example.id: None for example in examples if example.id not in learned}


def _check_enough(
    workspace: Workspace,
    version: Version,
    examples: Sequence[Example],
    unseen: Mapping[str, Prediction | None],
) -> None:
    """Raise NoModelError if no pair is left that a title can be held against."""
    if not any(example.id in unseen for example in examples):
        raise NoModelError(pictures_gone(workspace, f"thumbnails of version {version.number}"))


def pictures_gone(workspace: Workspace, which: str) -> str:
    """What is said where nothing is left to look at."""
    return (
        f"The {which} are no longer in {workspace}/thumbnails. Train again: what can be fetched "
        "is fetched again."
    )


def examples_of(workspace: Workspace, version: Version) -> list[Example]:
    """The channel as a version knows it.

    Raises:
        NoModelError: the table is gone or damaged.
    """
    if not version.examples.is_whole(workspace):
        raise NoModelError(
            f"The examples {workspace}/{version.examples.path} of version {version.number} are "
            "gone or damaged. Train again: only what is missing is made."
        )
    return workspace.read_table(version.examples, Example)


def champion_of(registry: Registry) -> Version:
    """The version in use.

    Raises:
        NoModelError: none was promoted yet.
    """
    champion = registry.champion()
    if champion is None:
        numbers = ", ".join(str(version.number) for version in registry.versions())
        raise NoModelError(
            f"No version of {registry.name} is the champion; it has: {numbers}. "
            "`thumbtune rollback NUMBER` makes one the champion."
        )
    return champion
