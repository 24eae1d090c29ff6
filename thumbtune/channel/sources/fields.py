"""Values of strangers' files: decoded, parsed and checked, or one sentence about what is wrong."""

import json
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import isodate

from thumbtune.errors import SourceError


def content(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 as its first bytes tell.

    Raises:
        SourceError: it cannot be read, or is in another encoding.
    """
    try:
        data = file.read_bytes()
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SourceError(
            f"{file.name}: line {line} is not UTF-8 ({error.reason}). Save it as UTF-8 "
            "(in Excel: CSV UTF-8)."
        ) from None
    except OSError as error:
        raise SourceError(f"{file.name}: cannot be read ({error.strerror}).") from None


def parsed(text: str, place: str, line: int | None = None) -> Any:
    """A JSON value.

    Args:
        line: where the text stands in its file, if it is one line of it.

    Raises:
        SourceError: it is none, or too deep or long to read.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line or error.lineno} column {error.colno}"
        raise SourceError(f"{place} not valid JSON ({error.msg}: {where}).") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{place} not valid JSON ({error}).") from None


def text(row: dict[str, Any], field: str, place: str, may_be_empty: bool = False) -> str:
    """A field's text, trimmed; a whole number counts as text."""
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        has = "" if field in row else f" It has {listed(row)}."
        raise SourceError(f"{place}: the field {field!r} is missing or no text; add it.{has}")
    if not is_unicode(value):  # JSON can say half of a character: "\ud800"
        raise SourceError(f"{place}: the field {field!r} is no valid Unicode; mend it.")
    return value.strip()


def is_unicode(value: str) -> bool:
    """Whether a text can be stored: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def duration(value: Any, place: str) -> float | None:
    """Seconds, of a number or an ISO 8601 duration."""
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        seconds = -1.0
    except (TypeError, ValueError):
        seconds = parse_duration(str(value), unknown=-1.0)
    if not 0 <= seconds < float("inf"):
        raise SourceError(
            f"{place}: duration {value!r:.50} is neither seconds nor ISO 8601 such as 'PT4M30S'."
        )
    return seconds


def date(value: Any, place: str) -> str | None:
    """ISO 8601 in UTC."""
    if value in (None, ""):
        return None
    try:
        moment = datetime.fromisoformat(str(value))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise SourceError(
            f"{place}: publishedAt {value!r:.50} is not ISO 8601 such as '2024-05-01T12:00:00Z'."
        ) from None


def listed(names: Any, most: int = 12) -> str:
    """The first of some names, for a sentence; a name from a file may be long and hold anything."""
    all_names = [name if len(name) <= 60 else f"{name[:60]}…" for name in map(str, names)]
    shown = ", ".join(
        ascii(name) if not is_unicode(name) else repr(name) for name in all_names[:most]
    )
    more = len(all_names) - most
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"


def folded(name: str) -> str:
    """A column's name without case, spaces and signs: `Video_ID` and `videoId` are one."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))


T = TypeVar("T")


def parse_duration(text: str, unknown: T) -> float | T:
    """Seconds of an ISO 8601 duration such as PT4M30S; `unknown` if it is none."""
    try:
        seconds: float = isodate.parse_duration(text).total_seconds()
    except (isodate.ISO8601Error, AttributeError, ValueError, ArithmeticError, TypeError):
        return unknown
    return seconds
