"""Which titles count as equal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbtune.text.titles import is_blank, number_titles, same_title

INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u202e\u2060\u2066\ufe0f\ufeff\U000e0061"
)
"""Soft hyphen, joiners, marks of direction, variation selectors, a byte order mark, a tag."""

SPACES = " \u00a0\t\u2003\u3000\n"


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A title, and the same in another case, form, with other spaces and invisible characters."""
    title = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
    form = draw(st.sampled_from(("NFC", "NFD", "NFKC", "NFKD")))
    case = draw(st.sampled_from((str, str.upper, str.lower, str.casefold, str.swapcase)))
    decorated = case(unicodedata.normalize(form, title))
    for place in sorted(draw(st.lists(st.integers(0, len(decorated)))), reverse=True):
        mark = draw(st.sampled_from(INVISIBLE))
        decorated = decorated[:place] + mark + decorated[place:]
    around = st.text(st.sampled_from(SPACES))
    return title, draw(around) + decorated + draw(around)


@given(spellings())
def test_a_title_is_the_same_however_it_is_decorated(two: tuple[str, str]) -> None:
    title, decorated = two
    assert same_title(decorated) == same_title(title)
    assert same_title(same_title(title)) == same_title(title)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("İSTANBUL", "istanbul"),
        ("Iğdır", "IĞDIR"),
        ("i\u0307\u0301", "Í"),
        ("J\u0307\u0303", "j\u0303"),
        ("į\u0307\u0300", "Į\u0300"),
        ("𝚤stanbul", "İstanbul"),
        ("ΟΔΟΣ", "οδος"),
        ("STRASSE", "straße"),
    ],
)
def test_capitals_are_the_same_as_small_letters_in_every_language(one: str, other: str) -> None:
    assert same_title(one) == same_title(other)
    assert same_title(same_title(one)) == same_title(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ė", "e"),
        ("Żar", "Zar"),
        ("ï", "i"),
        ("i\u0301\u0307", "í"),
        ("A Robot", "Robot"),
        ("A Robot", "ARobot"),
        ("Résumé", "Resume"),
        ("C", "C++"),
        ("Day 1", "Day 2"),
        ("Why?", "Why!"),
        ("I built a house 😱", "I built a house 🔥"),
    ],
)
def test_titles_that_a_reader_tells_apart_are_different(one: str, other: str) -> None:
    assert same_title(one) != same_title(other)


@given(st.text(st.sampled_from(INVISIBLE + SPACES + "\u3164\u2800\x00\x7f")))
def test_a_title_of_what_cannot_be_seen_is_none(title: str) -> None:
    assert is_blank(title)


@given(st.text(min_size=1).map(lambda text: f"a{text}"))
def test_a_title_with_a_letter_is_one(title: str) -> None:
    assert not is_blank(title)


@given(st.lists(st.sampled_from(["b", "B", "b\u200b", "a", "c", "C "])))
def test_equal_titles_have_equal_numbers_from_zero_up(titles: list[str]) -> None:
    numbers = number_titles(titles).tolist()
    assert len({*zip(map(same_title, titles), numbers, strict=True)}) == len(set(numbers))
    assert set(numbers) == set(range(len({same_title(title) for title in titles})))
