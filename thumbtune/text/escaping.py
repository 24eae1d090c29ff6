"""Text of strangers, made harmless for where it is shown: titles, names, what servers answer.

On HTML pages Jinja does it, see `thumbtune.reporting.report.html_templates`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, which may begin a terminal's command, what turns the direction of all that
follows, and what is no character; tabs and line breaks are none of these."""

REPLACEMENT = "\ufffd"
GROUPS = ("all", "channel", "everyone", "here")
"""Whom a chat calls all at once by @ and this word."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would reckon."""

LONGEST_CONTENT = 2000  # characters of a message that Discord takes


def for_terminal(text: str) -> str:
    """Text that a terminal shows and does not obey; what it would obey is replaced."""
    return UNSEEN.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def json_for_terminal(text: str) -> str:
    """JSON with the same content, in which such characters stand as `\\u009b`."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _on_one_line(text: str) -> str:
    return UNSEEN.sub(REPLACEMENT, " ".join(text.split()))


def for_markdown(text: str) -> str:
    """Text as Markdown shows it letter by letter, on one line, also in a cell of a table.

    No link is made of an address: neither of `[x](y)` nor of one that stands there bare.
    """
    line = _on_one_line(text)
    line = re.sub(r"([\\`*_\[\]<>&|~$#])", r"\\\1", line)
    line = re.sub(r"://", r"\\:\\/\\/", line)
    line = re.sub(r"(?i)(www)\.", r"\1\\.", line)
    line = re.sub(r"(?<=\S)@", r"\\@", line)
    return re.sub(r"^(\d{0,9})([-+=.)](?![^\s=-]))", r"\1\\\2", line)  # a list, a line, a heading


def without_code(text: str) -> str:
    """Words in backticks as bare words, for where no Markdown is read."""
    return text.replace("`", "")


def as_code(text: str) -> str:
    """Text as Markdown's code: between more backticks than it has in a row."""
    line = _on_one_line(text)
    most = max((len(run) for run in re.findall("`+", line)), default=0)
    ticks, space = "`" * (most + 1), " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def for_slack(text: str, own: str = "") -> str:
    """Text of which Slack and Mattermost make no mention, link or picture.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    Mattermost reads the same, Markdown too, and every @name as a mention.

    Args:
        own: a handle, such as @tester, that was set by whoever gets the message, and stays.
    """
    line = _on_one_line(text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"\](?=[(\[:])", "]\u200b", line)
    return re.sub(r"@([\w.·-]*)", lambda found: _no_mention(found, own), line)


def _no_mention(found: re.Match[str], own: str) -> str:
    name = found[1].rstrip(".-·")
    is_own = f"@{name}" == own and name.casefold() not in GROUPS
    return found[0] if is_own else f"@\u200b{found[1]}"


def for_discord(text: str) -> str:
    """Text of which Discord makes no link and no format; cut where it takes no more.

    Mentions are switched off in the message: `allowed_mentions`.
    """
    shown = re.sub(r"([\\`*_\[\]()<>|~#:@-])", r"\\\1", _on_one_line(text))
    if len(shown) <= LONGEST_CONTENT:
        return shown
    return f"{shown[: LONGEST_CONTENT - 1].rstrip(chr(92))}…"


def for_spreadsheet(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def in_cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table artifact, whose cells the UI shows as markdown."""
    return [
        {
            name: for_markdown(value) if isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in rows
    ]
