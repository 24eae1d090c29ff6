"""Spellings of a YouTube channel: all ways to write one are one; what is none gets a sentence."""

import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from thumbtune.names.channel_name import ChannelNameError, channel_query, read_channel_name
from thumbtune.parameters import TrainParameters
from thumbtune.text.characters import INVISIBLE

pytestmark = pytest.mark.compatibility

CHANNEL_ID = "UC" + "aB-_" * 5 + "xY"


@pytest.mark.parametrize(
    ("channel", "query"),
    [
        ("@हिन्दी", {"forHandle": "@हिन्दी"}),
        ("@ভাষা", {"forHandle": "@ভাষা"}),
        ("@日本語チャンネル", {"forHandle": "@日本語チャンネル"}),
        ("@العربية", {"forHandle": "@العربية"}),
        ("@cafe\u0301.l·l_1-", {"forHandle": "@café.l·l_1-"}),
        ("＠tester", {"forHandle": "@tester"}),
        ("@tes\u180bter\ufe0f\U000e0001", {"forHandle": "@tester"}),
        (
            "https://www.youtube.com/%40%E0%A4%B9%E0%A4%BF%E0%A4%A8%E0%A5%8D%E0%A4%A6%E0%A5%80/",
            {"forHandle": "@हिन्दी"},
        ),
        ("https%3A%2F%2Fwww.youtube.com%2F%40tester%3Fsi%3Dx", {"forHandle": "@tester"}),
        ("www.youtube.com/user/SomeBody/videos", {"forUsername": "SomeBody"}),
        ("youtube.com/USER/SomeBody", {"forUsername": "SomeBody"}),
        (f"https://studio.youtube.com/channel/{CHANNEL_ID}/videos/upload", {"id": CHANNEL_ID}),
        (f"https://music.youtube.com/channel/{CHANNEL_ID}?si=a", {"id": CHANNEL_ID}),
        (f"youtube.com/{CHANNEL_ID}", {"id": CHANNEL_ID}),
        ("https://youtube.com:443/@tester?si=abc#about", {"forHandle": "@tester"}),
        ("@tester/shorts", {"forHandle": "@tester"}),
        ("//m.youtube.com//@tester//", {"forHandle": "@tester"}),
    ],
)
def test_a_channel_is_found_by_any_spelling(channel: str, query: dict[str, str]) -> None:
    assert channel_query(channel) == query


letters = st.characters(categories=["Ll", "Lu", "Lt", "Lo", "Lm", "Mn", "Mc", "Nd"])
handles = (
    st.text(letters | st.sampled_from("_-.·"), min_size=1, max_size=30)
    .map(lambda text: "@" + unicodedata.normalize("NFC", "a" + text))
    .filter(lambda text: all(map(_shows, text)))
)
ids = st.from_regex(r"UC[A-Za-z0-9_-]{22}", fullmatch=True)
unseen = st.text("\u200b\u200c\u200d\u2060\ufeff\u200e\u202a\u202e\u2066\u2069\u00ad", max_size=3)
around = st.tuples(
    st.text(" \t\n\r\u00a0\u2009\u3000\u200b\ufeff\u200f", max_size=4),
    st.sampled_from([("", ""), ("<", ">"), ('"', '"'), ("'", "'"), ("“", "”"), ("(", ")")]),
    st.text(" \n\u00a0\ufeff\u202c", max_size=4),
)
schemes = st.sampled_from(["", "//", "https://", "http://", "HTTPS://"])
hosts = st.sampled_from(
    ["youtube.com", "www.youtube.com", "m.YouTube.com", "MUSIC.youtube.com", "studio.youtube.com"]
)
endings = st.sampled_from(
    ["", "/", "//", "/videos", "/shorts/", "/featured?view=0", "?si=x/y", "#about", "/about#a?b"]
)


def _shows(letter: str) -> bool:
    """Whether a letter can be seen; some Unicode letters and marks show nothing."""
    return not INVISIBLE.match(letter)


@given(data=st.data(), name=handles | ids)
def test_decorations_change_nothing(data: st.DataObject, name: str) -> None:
    text = name
    if data.draw(st.booleans(), label="an address"):
        form = data.draw(st.sampled_from(["NFC", "NFD"]))
        text = unicodedata.normalize(form, name)
        text = quote(text) if data.draw(st.booleans(), label="encoded") else text
        place = "" if name[0] == "@" else "/channel"
        text = f"{data.draw(schemes)}{data.draw(hosts)}{place}/{text}{data.draw(endings)}"
    at = data.draw(st.integers(0, len(text)))
    before, (opened, closed), after = data.draw(around)
    text = f"{before}{opened}{text[:at]}{data.draw(unseen)}{text[at:]}{closed}{after}"
    assert read_channel_name(text) == read_channel_name(name)


@given(handles)
def test_capitals_make_no_other_handle(handle: str) -> None:
    name = read_channel_name(handle)
    assert read_channel_name(unicodedata.normalize("NFD", handle)).canonical == name.canonical
    ascii_only = "".join(c.upper() if c.isascii() else c for c in handle)
    assert read_channel_name(ascii_only).canonical == name.canonical


def test_capitals_make_another_channel_id() -> None:
    other = "UC" + CHANNEL_ID[2:].swapcase()
    assert read_channel_name(other).canonical != read_channel_name(CHANNEL_ID).canonical


VIDEO = "is a video, and no channel. Click the channel's name below the video"
PLAYLIST = "is a playlist, and no channel. Click the channel's name below the playlist's title"
OLDER = "has a name of an older kind, which cannot be looked up. Open it: the @handle stands below"


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("https://www.youtube.com/watch?v=abcdefghijk&list=PL0", VIDEO),
        ("https://youtu.be/abcdefghijk?si=2", VIDEO),
        ("youtube.com/shorts/abcdefghijk", VIDEO),
        ("https://www.youtube.com/live/abcdefghijk", VIDEO),
        ("https://www.youtube.com/playlist?list=PLabcdefghijk", PLAYLIST),
        ("UU" + CHANNEL_ID[2:], PLAYLIST),
        ("https://www.youtube.com/c/SomeName", OLDER),
        ("c/SomeName", OLDER),
        ("youtube.com/SomeName", OLDER),
        ("SomeName", "If it is the handle, write it with @ before it"),
        ("me@example.org", "is no channel id (UC…, 24 characters), @handle or channel URL"),
        (" \u200b", "is no channel id (UC…, 24 characters), @handle or channel URL"),
        ("@my channel", "is no @handle: one has letters, digits and - _ . · in it"),
        ("@my\u00a0channel", "is no @handle: one has letters, digits and - _ . · in it"),
        (CHANNEL_ID.lower(), "one is UC and 22 characters, and capitals count"),
        (CHANNEL_ID + "a", "one is UC and 22 characters, and capitals count"),
        ("https://www.youtube.com/channel/", "one is UC and 22 characters, and capitals count"),
        ("https://www.youtube.com/", "is YouTube's own page"),
        ("https://notyoutube.com/@tester", "is no address of YouTube"),
        ("https://youtube.com.example.org/@tester", "is no address of YouTube"),
    ],
)
def test_what_is_no_channel_says_where_the_name_stands(channel: str, said: str) -> None:
    with pytest.raises(ChannelNameError) as error:
        read_channel_name(channel)
    assert str(error.value).startswith(f"channel: {channel!r} ")
    assert said in str(error.value)
    assert str(error.value).endswith("copy its address or its @handle.")
    with pytest.raises(ValidationError, match="copy its address or its @handle"):
        TrainParameters(channel=channel)


@given(st.text(st.characters(), max_size=60))
def test_any_text_is_a_channel_or_one_error(text: str) -> None:
    try:
        [(parameter, value)] = channel_query(text).items()
    except ChannelNameError as problem:
        said = str(problem)
    else:
        said = f"{parameter} {value}"
        assert parameter in ("id", "forHandle", "forUsername")
    assert said.isprintable()


@pytest.mark.parametrize("source", ["folder", "hub"])
def test_spelling_is_a_matter_of_youtube_alone(source: str) -> None:
    channel = "https://youtu.be/abcdefghijk"
    assert TrainParameters.model_validate({"source": source, "channel": channel}).channel == channel
