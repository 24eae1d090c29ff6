"""The model in use of a channel, for who asks it again and again: the page and the service."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from PIL import Image

from thumbtune.channel.registry import Registry, Version
from thumbtune.channel.source import source_of
from thumbtune.channel.views import read_views, views_in
from thumbtune.data.thumbnails import Example
from thumbtune.errors import UserError
from thumbtune.learning.evaluation import Embeddings
from thumbtune.reporting.views import FitAndViews, fit_and_views, relative_views
from thumbtune.store.workspace import Workspace
from thumbtune.text.titles import same_title
from thumbtune.use.indexing import Indexed, ThumbnailIndex, index_channel, open_index
from thumbtune.use.mapping import ChannelMap, map_of
from thumbtune.use.matching import Matcher, NoModelError, champion_of, examples_of

MAX_TITLES = 50
MAX_CHARACTERS = 200  # of a title; YouTube allows 100
MOST_KEPT = 2000  # vectors; of 768 numbers these are 6 MB
CHOICES = 60  # thumbnails of the channel that are offered


class QuestionError(UserError, ValueError):
    """The page was asked what it cannot answer; the message says what to give instead."""


class About(NamedTuple):
    """What else is known of a video."""

    published: str
    """Its day, such as 2026-05-31, or empty."""
    address: str
    """Where it can be watched, or empty."""
    watched: str
    """How often it was watched, beside the channel's videos of like age, or empty."""


class Kept:
    """Vectors of what was asked about lately, so that it is embedded once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.vectors: dict[Hashable, Embeddings] = {}

    def of(self, keys: Sequence[Hashable], embed: Callable[[list[int]], Embeddings]) -> Embeddings:
        """Vectors by their keys, shape (keys, dimensions).

        Args:
            embed: gives those of the places that are not known.
        """
        new = [place for place, key in enumerate(keys) if key not in self.vectors]
        made = dict(zip((keys[place] for place in new), embed(new), strict=True)) if new else {}
        found = np.stack([made[key] if key in made else self.vectors[key] for key in keys])
        self.vectors |= dict(zip(keys, found, strict=True))
        for key in list(self.vectors)[: -self.most]:
            del self.vectors[key]
        return found


class Champion:
    """A channel's model in use, loaded when first needed; a promotion counts from the next use."""

    def __init__(self, workspace: Workspace, registry: Registry) -> None:
        self.workspace = workspace
        self.registry = registry
        self._matcher = lru_cache(2)(self._load)  # before and after training
        self._indexed = cache(self._index)
        self._opened = lru_cache(1)(self._open)
        self._videos = lru_cache(1)(self._by_id)
        self._titles = lru_cache(1)(self._by_title)
        self._relative = lru_cache(1)(self._relative_views)
        self._signal = lru_cache(1)(self._fit_and_views)
        self._kept = Kept(MOST_KEPT)

    def version(self) -> Version:
        """The version in use; NoModelError if there is none."""
        return champion_of(self.registry)

    def matcher(self, untouched: bool = False) -> Matcher:
        """Its model, or the one that it was trained from."""
        return self._matcher(self.version().number, untouched)

    def _load(self, number: int, untouched: bool) -> Matcher:
        return Matcher.of_version(self.workspace, self.registry.version(number), untouched)

    def embed_titles(self, titles: Sequence[str]) -> Embeddings:
        """Unit vectors of titles, shape (titles, dimensions)."""
        number, matcher = self.version().number, self.matcher()
        keys = [(number, title) for title in titles]
        return self._kept.of(keys, lambda new: matcher.embed_titles([titles[n] for n in new]))

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Unit vectors of pictures, shape (images, dimensions)."""
        number, matcher = self.version().number, self.matcher()
        keys = [(number, each.size, sha256(each.tobytes()).digest()) for each in images]
        return self._kept.of(keys, lambda new: matcher.embed_images([images[n] for n in new]))

    def index(self) -> ThumbnailIndex:
        """The channel's pictures as the model sees them, with those that joined since.

        To open it checks every byte, so it stays open until index.json, which names its files by
        their checksums, says something else.

        Raises:
            NoIndexError: it is gone or damaged.
        """
        place = self._indexed(self.version().number).folder
        names = b""
        with suppress(OSError):
            names = self.workspace.read(f"{place}/index.json")
        return self._opened(place, names)

    def _open(self, place: str, names: bytes) -> ThumbnailIndex:
        return open_index(self.workspace, place)

    def map(self) -> ChannelMap:
        """The channel's thumbnails, laid out by the model.

        Raises:
            MapError: there are too few.
        """
        index, dates = self.index(), {}
        with suppress(NoModelError):
            rows = self._videos(self.version().number)
            dates = {id_: row.published_at or "" for id_, row in rows.items()}
        return map_of(self.workspace, self.registry.name, index, dates)

    def gone(self) -> dict[str, int]:
        """Why pictures of the channel are not in its index → how many."""
        return self._indexed(self.version().number).dropped

    def _index(self, number: int) -> Indexed:
        version, matcher = self.registry.version(number), self._matcher(number, False)
        return index_channel(self.workspace, version, matcher)

    def about(self, video_id: str) -> "About":
        """When a video was published, and where it can be watched, as far as is known."""
        example = None
        with suppress(NoModelError):  # the list is gone; what was found is there all the same
            example = self._videos(self.version().number).get(video_id)
        published = (example.published_at or "")[:10] if example else ""
        address = source_of(self.registry.source).address_of(video_id) if example else ""
        return About(published, address, self._watched(video_id))

    def _watched(self, video_id: str) -> str:
        reading = read_views(self.registry)
        count = views_in(reading).counts.get(video_id) if reading else None
        if count is None:
            return ""
        times = self._relative(self.version().number, reading).get(video_id)
        beside = f", {times:.1f} times those of its time" if times is not None else ""
        return f"{count:,} views{beside}"

    def _relative_views(self, number: int, reading: bytes) -> dict[str, float]:
        return relative_views(list(self._videos(number).values()), views_in(reading))

    def fit_and_views(self) -> FitAndViews | None:
        """Whether fit and views go together on the channel; None where too little is known."""
        with suppress(NoModelError):
            return self._signal(self.version().number, read_views(self.registry))
        return None

    def _fit_and_views(self, number: int, reading: bytes) -> FitAndViews | None:
        own = self._matcher(number, False).own
        if own is None or not reading:
            return None
        return fit_and_views(own.fits, list(self._videos(number).values()), views_in(reading))

    def used_before(self, title: str) -> str:
        """The day on which the channel published a title that looks the same; empty if none did."""
        with suppress(NoModelError):
            return self._titles(self.version().number).get(same_title(title), "")
        return ""

    def _by_title(self, number: int) -> dict[str, str]:
        rows = reversed(self._videos(number).values())
        return {same_title(row.title): (row.published_at or "")[:10] or "before" for row in rows}

    def _by_id(self, number: int) -> dict[str, Example]:
        rows = examples_of(self.workspace, self.registry.version(number))
        return {row.id: row for row in rows}

    def choices(self) -> list[Example]:
        """Videos of the channel that had no part in its training."""
        rows = examples_of(self.workspace, self.version())
        return [row for row in rows if row.split == "test"][:CHOICES]


def check_titles(titles: Sequence[str]) -> list[str]:
    """Titles that can be matched at a time.

    Raises:
        QuestionError: one is too long, or there are too many.
    """
    if len(titles) > MAX_TITLES:
        raise QuestionError(
            f"These are {len(titles)} titles; {MAX_TITLES} can be matched at a time. "
            "Remove some lines."
        )
    for number, title in enumerate(titles, 1):
        if len(title) > MAX_CHARACTERS:
            raise QuestionError(
                f"Title {number} has {len(title)} characters; {MAX_CHARACTERS} is the most "
                f"(YouTube takes 100). Shorten “{title[:40]}…”."
            )
    return list(titles)
