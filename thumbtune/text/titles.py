"""When two titles are the same to a reader."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thumbtune.text.characters import INVISIBLE

BLANK = re.compile("[\x00-\x20\x7f-\x9f\u2800]+")
"""Control characters and the empty Braille cell: not spaces to `str.split`, but seen as such."""

DOT = re.compile("(?<=[ij])(\u0328?)\u0307+")
"""A dot above i, j or į, which they have anyway: İ of Turkish has it when it is folded, and i̇́ of
Lithuanian keeps it beside an accent."""


def same_title(title: str) -> str:
    """What titles have in common that look alike, but for case: compare these, show the title.

    Case, Unicode form (é as one character or two, full-width letters), white space and invisible
    characters (zero-width, soft hyphens, variation selectors, marks of direction) do not count.
    It is Unicode's compatibility caseless match, D146 of its chapter 3, for which İ, I, ı and i are
    the same letter besides. Empty if there is nothing to see: `is_blank`.
    """
    folded = unicodedata.normalize("NFD", INVISIBLE.sub("", title)).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    folded = INVISIBLE.sub("", folded).replace("ı", "i")  # of Turkish: its capital is I
    folded = unicodedata.normalize("NFKC", DOT.sub(r"\1", folded))
    return " ".join(BLANK.sub(" ", folded).split())


def is_blank(title: str) -> bool:
    """Whether a title shows nothing: empty, or white space and invisible characters alone."""
    return not same_title(title)


def number_titles(titles: Sequence[str]) -> NDArray[np.intp]:
    """Equal numbers for equal titles, from 0 up, shape (titles,); in the order of their spelling.

    Of several spellings the first in that order counts, so that numbers do not depend on `titles`'
    order, and those of titles that differ to the eye are as if they were compared as they stand.
    """
    spelling: dict[str, str] = {}
    for title in sorted(set(titles)):
        spelling.setdefault(same_title(title), title)
    place = {title: number for number, title in enumerate(sorted(spelling.values()))}
    return np.array([place[spelling[same_title(title)]] for title in titles], np.intp)
