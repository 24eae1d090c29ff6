"""Reads manifest.json (a list), manifest.jsonl or manifest.csv, row by row.

The separator of a CSV file is the one that makes its first line name the columns; so a title full
of commas or semicolons cannot mislead. Columns may have other common names: see `FIELDS`.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from thumbtune.channel.sources.fields import content, folded, listed, parsed
from thumbtune.errors import SourceError

MANIFESTS = ("manifest.json", "manifest.jsonl", "manifest.csv")

FIELDS = {
    "id": ("id", "videoid"),
    "title": ("title", "videotitle"),
    "image": ("image", "thumbnail", "thumbnailurl"),
    "duration": ("duration", "durationseconds"),
    "publishedAt": ("publishedat",),
}
"""Field → its name, then others that are taken for it, as `folded` gives them."""

REQUIRED = ("id", "title", "image")
SEPARATORS = ",;\t|"  # of equal ones the first counts
SEPARATOR_LINE = re.compile(r'"?sep=(?P<separator>[^\r\n])"?[^\r\n]*(\r\n|\r|\n)', re.IGNORECASE)
"""What Excel reads a separator from: a first line such as sep=;"""

csv.field_size_limit(2**31 - 1)  # a file is bounded by itself; Python's limit refuses transcripts


def read_rows(manifest: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a manifest by the names of `FIELDS`, each with its place for an error.

    Raises:
        SourceError: the file is not what its name says, or lacks a column.
    """
    text = content(manifest)
    rows = {".csv": _csv_rows, ".jsonl": _json_lines, ".json": _json_list}
    yield from rows[manifest.suffix.lower()](manifest.name, text)


def columns_of(names: Sequence[str], place: str) -> dict[str, str]:
    """Field → the name that stands for it; a field's own name comes before others.

    Raises:
        SourceError: two names could stand for the same field.
    """
    found = {}
    for field, aliases in FIELDS.items():
        fitting = [name for name in names if folded(name) == aliases[0]]
        fitting = fitting or [name for name in names if folded(name) in aliases[1:]]
        if len(fitting) > 1:
            fitting = [field] if fitting.count(field) == 1 else fitting
        if len(fitting) > 1:
            raise SourceError(
                f"{place}: {listed(fitting)} could each be the field {field!r}. "
                f"Name the one that is meant {field!r}, and the others otherwise."
            )
        if fitting:
            found[field] = fitting[0]
    return found


def _by_field(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise SourceError(f"{place}: must be an object with id, title and image.")
    columns = columns_of(list(row), place)
    return {**row, **{field: row[name] for field, name in columns.items()}}


def _json_list(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        value = parsed(text, f"{name}: the file is")
    except SourceError as error:
        if "Extra data" not in str(error):
            raise
        mend = "If it has one object a line, name it manifest.jsonl."
        raise SourceError(f"{error} {mend}") from None
    if not isinstance(value, list):
        raise SourceError(f"{name}: must be a JSON list of videos.{_list_within(value)}")
    for number, row in enumerate(value, 1):
        place = f"{name}, entry {number}"
        yield place, _by_field(row, place)


def _list_within(value: Any) -> str:
    parts = value.items() if isinstance(value, dict) else ()
    inner = [key for key, part in parts if isinstance(part, list)]
    return f" It holds one under {listed(inner, 1)}: leave only that in the file." if inner else ""


def _json_lines(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line.strip():
            continue
        place = f"{name}: line {number}"
        try:
            row = parsed(line, f"{place} is", number)
        except SourceError as error:
            mend = " If the file is one list, name it manifest.json." if line[0] == "[" else ""
            raise SourceError(f"{error}{mend}") from None
        yield place, _by_field(row, place)


def _csv_rows(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    told = SEPARATOR_LINE.match(text)
    body = text[told.end() :] if told else text
    above = 1 if told else 0
    separator = told["separator"] if told else _separator(body)
    records = _records(name, body, separator, above)
    line, header = next(records, (above + 1, []))
    header = [cell.strip() for cell in header]
    columns = columns_of([cell for cell in header if cell], f"{name}: line {line}")
    if missing := [field for field in REQUIRED if field not in columns]:
        raise SourceError(
            f"{name}: line {line} must name the columns id, title and image; it lacks "
            f"{listed(missing)}. It has {listed(filter(None, header))}."
        )
    place_of = {field: header.index(column) for field, column in columns.items()}
    for line, cells in records:
        place = f"{name}: line {line}"
        if any(cell.strip() for cell in cells[len(header) :]):
            raise SourceError(
                f"{place} has {len(cells)} cells, but there are {len(header)} columns. "
                f"Put a cell that holds {separator!r} in double quotes."
            )
        yield place, {field: cells[n] for field, n in place_of.items() if n < len(cells)}


def _separator(text: str) -> str:
    """The character that makes the first line name the most fields."""
    first = next((line for line in text.splitlines() if line.strip()), "")[:10_000]
    others = sorted({sign for sign in first if not (sign.isalnum() or sign in f'"{SEPARATORS}')})
    return max([*SEPARATORS, *others], key=lambda sign: _fields_named(text, sign))


def _fields_named(text: str, separator: str) -> int:
    try:
        _, header = next(_records("", text, separator, 0), (1, []))
    except SourceError:
        return 0
    names = {folded(cell) for cell in header}
    return sum(not names.isdisjoint(aliases) for aliases in FIELDS.values())


def _records(name: str, text: str, separator: str, above: int) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with the line on which an editor shows its beginning."""
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
    line = above + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = above + reader.line_num + 1
    except csv.Error as error:
        raise SourceError(
            f"{name}: line {line} is not valid CSV ({error}). Put a cell that holds a quote in "
            "double quotes, and write each quote in it twice."
        ) from None
