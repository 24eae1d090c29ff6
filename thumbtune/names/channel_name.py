"""How a YouTube channel is called: every way to write one, read into what YouTube can look up.

A handle, such as @ShawTalebi, means the same in capitals or not; a channel id does not. The same
channel comes as an address of several hosts, with a page of it behind, percent-encoded, in quotes,
with marks that nobody sees: all of that is read away.
"""

import re
import unicodedata
from typing import Literal, NamedTuple
from urllib.parse import unquote

from thumbtune.errors import SourceError
from thumbtune.text.characters import INVISIBLE

CHANNEL_ID = re.compile(r"UC[A-Za-z0-9_-]{22}")
USERNAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
LONGEST_HANDLE = 100  # code points, marks included; YouTube allows 30 characters
HOST = re.compile(
    r"(?:(?:https?:)?//)?(?:[a-z0-9-]+\.)*youtu(?:be\.com|\.be)\.?(?::[0-9]+)?(?=[/?#]|$)",
    re.IGNORECASE,
)
AROUND = "\"'`“”„‟‘’‚‛«»‹›<>()[]{},; "
"""What stands around a name that was copied out of a text."""

VIDEO_PAGES = ("watch", "shorts", "live", "embed", "v", "clip")
COPY = "copy its address or its @handle"


class ChannelNameError(SourceError, ValueError):
    """A text names no channel that YouTube can look up; the message says where the name stands."""


class ChannelName(NamedTuple):
    """What to ask channels.list for."""

    parameter: Literal["id", "forHandle", "forUsername"]
    value: str
    """`UC…`, `@handle` as it was written, or the name of /user/name."""

    @property
    def spelled(self) -> str:
        """For people: `UC…`, `@handle` or `user/name`."""
        return f"user/{self.value}" if self.parameter == "forUsername" else self.value

    @property
    def canonical(self) -> str:
        """Equal for all spellings of one name: capitals count in a channel id alone."""
        return self.value if self.parameter == "id" else folded(self.spelled)


def folded(text: str) -> str:
    """Equal for texts that differ in capitals or in how accents are stored."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def read_channel_name(text: str) -> ChannelName:
    """Read any spelling of a channel.

    Args:
        text: a channel id (UC and 22 characters), a @handle, or an address with one of them or
            with /user/name.

    Raises:
        ChannelNameError: it is none of these.
    """
    clean = _clean(text)
    if re.match(r"https?%3a", clean, re.IGNORECASE):
        clean = unquote(clean)
    host = HOST.match(clean)
    rest = clean[host.end() :] if host else clean
    path = unquote(re.split(r"[?#]", rest, maxsplit=1)[0])
    first, second, *_ = [*filter(None, map(_clean, path.split("/"))), "", ""]
    name = _in_path(first, second)
    if name is None or (not host and "://" in clean):
        raise ChannelNameError(f"channel: {text[:100]!r} {_problem(clean, host, first)}")
    return name


def channel_query(channel: str) -> dict[str, str]:
    """The parameter of channels.list that finds a channel, given in any spelling.

    Raises:
        ChannelNameError: it names no channel.
    """
    name = read_channel_name(channel)
    return {name.parameter: name.value}


def _clean(text: str) -> str:
    """Without what nobody sees, and without what stands around it; accents in one piece."""
    seen = "".join(map(_as_seen, text))
    return unicodedata.normalize("NFC", seen).strip(AROUND).replace("＠", "@")


def _as_seen(letter: str) -> str:
    """A letter, a plain space for any other space, or nothing for what shows nothing."""
    if letter.isspace():
        return " "
    shows_nothing = INVISIBLE.match(letter) or unicodedata.category(letter) in ("Cc", "Cf")
    return "" if shows_nothing else letter


def _in_path(first: str, second: str) -> ChannelName | None:
    match first.lower():
        case "channel":
            return _id_or_handle(second)
        case "user" if USERNAME.fullmatch(second):
            return ChannelName("forUsername", second)
    return _id_or_handle(first)


def _id_or_handle(text: str) -> ChannelName | None:
    if CHANNEL_ID.fullmatch(text):
        return ChannelName("id", text)
    letters = text[1:]
    if text[:1] == "@" and 0 < len(letters) <= LONGEST_HANDLE and all(map(_is_of_handle, letters)):
        return ChannelName("forHandle", text)
    return None


def _is_of_handle(letter: str) -> bool:
    """Letters, their marks and digits of any script, and what may stand between them."""
    return letter in "_-.·" or unicodedata.category(letter)[0] in "LMN"


def _problem(clean: str, host: re.Match[str] | None, first: str) -> str:
    """What is wrong with a spelling, and where the right one stands."""
    page = first.lower()
    open_it = f"Open the channel on YouTube and {COPY}."
    if not host and "://" in clean:
        return f"is no address of YouTube. {open_it}"
    if page == "playlist" or re.fullmatch(r"(PL|UU|OL|FL)[\w-]{10,}", first):
        return (
            "is a playlist, and no channel. Click the channel's name below the playlist's title, "
            f"and {COPY}."
        )
    if page in VIDEO_PAGES or (host and "youtu.be" in host[0].lower()):
        return f"is a video, and no channel. Click the channel's name below the video, and {COPY}."
    if first[:1] == "@":
        return f"is no @handle: one has letters, digits and - _ . · in it. {open_it}"
    if page == "channel" or re.match(r"UC", first) or re.fullmatch(r"uc[\w-]{22}", page):
        return f"is no channel id: one is UC and 22 characters, and capitals count. {open_it}"
    if host and not first:
        return f"is YouTube's own page. {open_it}"
    if host or page == "c":
        return (
            "has a name of an older kind, which cannot be looked up. Open it: the @handle stands "
            f"below the channel's name, the id (UC…) in its description under Share; {COPY}."
        )
    return (
        "is no channel id (UC…, 24 characters), @handle or channel URL. If it is the handle, "
        f"write it with @ before it; else open the channel on YouTube and {COPY}."
    )
