"""The model in use of a channel, as a program asks it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from PIL import Image

from thumbtune.channel.registry import Version, find_registry
from thumbtune.commands import DEFAULT_WORKSPACE
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import (
    Hits,
    channel_place,
    index_channel,
    open_index,
    search_picture,
    search_words,
)
from thumbtune.use.matching import Fit, Matcher, TitleError, champion_of

Picture = Image.Image | str | Path | bytes
"""A picture, the path of its file, or the file's bytes."""


class Champion(Matcher):
    """A version of a channel's model, with the channel's own titles and thumbnails.

    Attributes:
        workspace: where it is kept.
        version: its record, with the parameters and figures of its training.
    """

    workspace: Workspace
    version: Version

    @classmethod
    def of_version(cls, workspace: Workspace, version: Version, untouched: bool = False) -> Self:
        """A version, or what it was trained from; see `Matcher.of_version`."""
        champion = super().of_version(workspace, version, untouched)
        champion.workspace, champion.version = workspace, version
        return champion

    def rank_titles(self, image: Picture, titles: Sequence[str]) -> list[Fit]:
        """How well each title fits one picture, the best first.

        Raises:
            PictureError, TitleError: the picture is of no use; a title is empty, or there is none.
        """
        return super().rank_titles(self._read(image), titles)

    def compare(self, images: Sequence[Picture], titles: Sequence[str]) -> list[list[Fit]]:
        """How well each title fits each picture: a row of fits for each picture, in their order.

        Raises:
            PictureError, TitleError: a picture is of no use; a title is empty, or one is missing.
        """
        if not titles:
            raise TitleError("titles: there is none. Give at least one.")
        pictures = [self._read(image) for image in images]
        pairs = [(picture, title) for picture in pictures for title in titles]
        fits = self.score(pairs) if pairs else []
        return [fits[row : row + len(titles)] for row in range(0, len(fits), len(titles))]

    def search(
        self, words: str | None = None, *, image: Picture | None = None, top: int = 12
    ) -> Hits:
        """The channel's thumbnails that fit an idea best, or are most like a picture.

        New pictures of the channel are indexed first.

        Args:
            words: what the picture should show.
            image: in the place of words.
            top: how many are wanted.

        Raises:
            TitleError: there are no words.
            PictureError: the picture is of no use.
        """
        index_channel(self.workspace, self.version, self)
        index = open_index(self.workspace, channel_place(self.fingerprint, self.version))
        if image is not None:
            return search_picture(index, self, self._read(image), top)
        return search_words(index, self, words or "", top)

    def _read(self, image: Picture) -> Image.Image:
        return image if isinstance(image, Image.Image) else self.read_picture(image)


def open_champion(
    workspace: str | Path = DEFAULT_WORKSPACE,
    channel: str | None = None,
    source: str | None = None,
    untouched: bool = False,
) -> Champion:
    """The model in use of a channel.

    Args:
        workspace: local path or URL, as in the training.
        channel, source: as in the training; not needed if one channel alone has models.
        untouched: the model that the champion was trained from, instead.

    Raises:
        UnknownChannelError: there is no model of the channel; it lists those that there are.
        NoModelError: the channel has no champion, or its files are gone.
    """
    place = Workspace.find(workspace)
    registry = find_registry(place, source, channel)
    return Champion.of_version(place, champion_of(registry), untouched)
