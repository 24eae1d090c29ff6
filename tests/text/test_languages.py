"""Which language most titles are in."""

import pytest

from thumbtune.channel.sources.folder.listing import list_folder
from thumbtune.sample import CHANNEL
from thumbtune.text.languages import told_if_not_english

ENGLISH = [
    "5 AI Projects You Can Build This Weekend",
    "Minecraft but I can't jump",
    "GTA 5 RP #43",
    "I Built a SECRET Base",
    "Elden Ring Boss Guide",
    "Causal Effects | An introduction",
    "LLMs EXPLAINED",
    "What Nature Can Teach Us About Business",
]
GERMAN = [
    "Ich habe 24 Stunden im Wald überlebt",
    "Wie man Brot backt",
    "Was kostet das Auto wirklich?",
    "So wird dein Garten schön",
    "Reise nach Norwegen #3",
]
OTHERS = {
    "German": GERMAN,
    "Spanish": ["Cómo hacer pan en casa", "¿Qué pasó con Nokia?", "Viaje a México: día 3"],
    "French": ["Comment faire du pain", "24 heures dans un château", "L'histoire de Rome"],
    "Portuguese": ["Como fazer pão em casa", "O que aconteceu com a Nokia?"],
    "Turkish": ["Evde ekmek nasıl yapılır", "Dünyanın en pahalı arabası", "Roma tarihi"],
    "Polish": ["Jak upiec chleb w domu", "Najdroższe auto świata", "Historia Rzymu"],
    "Indonesian": ["Cara membuat roti di rumah", "Apa yang terjadi dengan Nokia"],
}


@pytest.mark.compatibility
@pytest.mark.parametrize("language", sorted(OTHERS))
def test_another_language_in_latin_letters_is_named(language: str) -> None:
    assert told_if_not_english(OTHERS[language]) == f"not English ({language}, by the look of it)"


@pytest.mark.parametrize(
    "titles",
    [
        ["Как испечь хлеб", "Самая дорогая машина"],
        ["パンの作り方", "世界一高い車"],
        ["كيف تصنع الخبز", "أغلى سيارة"],
        ["रोटी कैसे बनाएं", "सबसे महंगी कार"],
    ],
)
def test_other_letters_are_told_as_such(titles: list[str]) -> None:
    assert told_if_not_english(titles) == "not in Latin letters"


def test_of_english_titles_nothing_is_told() -> None:
    assert told_if_not_english(ENGLISH) == ""
    assert told_if_not_english([video.title for video in list_folder(CHANNEL)[0]]) == ""


def test_most_titles_decide() -> None:
    assert told_if_not_english([*ENGLISH * 5, *GERMAN]) == ""
    assert "German" in told_if_not_english([*ENGLISH[:2], *GERMAN * 5])
    assert told_if_not_english([*ENGLISH, "パンの作り方"]) == ""


@pytest.mark.parametrize("titles", [[], ["123", "!!!"], ["🎉"]])
def test_without_words_nothing_is_told(titles: list[str]) -> None:
    assert told_if_not_english(titles) == ""
