"""Which columns of a dataset hold the videos, and how what is in them is read.

A column's type is checked once, before any row is read: what has one meaning is converted, the
rest is an error that names the column.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from datasets import ClassLabel, Image, LargeList, List, Value

from thumbtune.errors import SourceError
from thumbtune.text.titles import is_blank

NAMES = {
    "id": ("video_id", "id"),
    "title": ("title",),
    "url": ("thumbnail_url",),
    "image": ("image",),
    "title_neg": ("title_neg",),
}
"""What a video needs → the columns that may hold it, the first found counts."""

TEXTS = {"string", "large_string", "string_view"}
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
BYTES = {"binary", "large_binary", "binary_view"}

Read = Callable[[Any], Any]


class Column(NamedTuple):
    """A column, and what its values are read by."""

    name: str
    read: Read
    note: str = ""
    """What the reading leaves out, in words."""


def find_columns(dataset: str, features: Mapping[str, Any]) -> dict[str, Column]:
    """The columns of a dataset that are of use: what a video needs → its column.

    Args:
        dataset: its name, for messages.
        features: column → its type.

    Raises:
        SourceError: a column is missing, or its type has no meaning here; names it and the mend.
    """
    found = {need: _named(dataset, features, names) for need, names in NAMES.items()}
    missing = [NAMES[need][0] for need in ("id", "title") if found[need] is None]
    if found["url"] is None and found["image"] is None:
        missing.append("thumbnail_url (or image)")
    if missing:
        raise SourceError(
            f"channel: the dataset {dataset!r} lacks the column {', '.join(missing)}; it has "
            f"{', '.join(features) or 'none'}. Rename its columns."
        )
    return {
        need: _column(dataset, need, name, features[name]) for need, name in found.items() if name
    }


def _named(dataset: str, features: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The column of one of these names; Video-ID and videoId are video_id if nothing else is."""
    for name in names:
        if name in features:
            return name
        alike = [column for column in features if _folded(column) == _folded(name)]
        if len(alike) > 1:
            raise SourceError(
                f"channel: the dataset {dataset!r} has the columns {' and '.join(alike)}, which "
                f"both may be {name}. Rename the one that is meant to {name}."
            )
        if alike:
            return alike[0]
    return None


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _column(dataset: str, need: str, name: str, feature: Any) -> Column:
    read = _picture(feature) if need == "image" else _text(feature, need)
    if read is None:
        wanted = "a picture, its bytes or its address" if need == "image" else "text"
        raise SourceError(
            f"channel: the column {name!r} of the dataset {dataset!r} holds {_in_words(feature)}; "
            f"it must hold {wanted}. Convert it, or rename the column that is meant to "
            f"{NAMES[need][0]}."
        )
    if isinstance(feature, (List, LargeList)):
        return Column(name, read, f"{name} holds lists: the first entry of each is taken")
    return Column(name, read)


def _text(feature: Any, need: str) -> Read | None:
    """What makes text of a column's values, "" of a missing one; None if they are no text."""
    match feature:
        case ClassLabel():
            return lambda value: _label(feature, value)
        case Value(dtype=dtype) if dtype in TEXTS | INTEGERS or dtype == "null":
            return lambda value: "" if value is None else str(value).strip()
        case List() | LargeList() if need in ("title", "title_neg"):
            read = _text(feature.feature, need="entry")
            return read and (lambda values: _first(map(read, values or [])))
    return None


def _label(feature: ClassLabel, value: int | None) -> str:
    """A class's name; the hub marks rows without a class by -1."""
    names = feature.names or []
    return names[value].strip() if value is not None and 0 <= value < len(names) else ""


def _first(texts: Any) -> str:
    return next((text for text in texts if not is_blank(text)), "")


def _picture(feature: Any) -> Read | None:
    """What makes bytes, an address or a path of a column's values; None if they are neither."""
    match feature:
        case Image():
            return _bytes_or_path
        case dict() if _holds_pictures(feature):
            return _bytes_or_path
        case Value(dtype=dtype) if dtype in BYTES | {"null"}:
            return lambda value: value or ""
        case Value(dtype=dtype) if dtype in TEXTS:
            return lambda value: (value or "").strip()
    return None


def _holds_pictures(fields: dict[str, Any]) -> bool:
    """Whether a struct is a picture as `datasets` stores it: bytes, path or both."""
    allowed = {"bytes": BYTES | {"null"}, "path": TEXTS | {"null"}}
    return bool(fields) and all(
        name in allowed and isinstance(field, Value) and field.dtype in allowed[name]
        for name, field in fields.items()
    )


def _bytes_or_path(value: dict[str, Any] | None) -> bytes | str:
    fields = value or {}
    return fields.get("bytes") or (fields.get("path") or "").strip()


def _in_words(feature: Any) -> str:
    match feature:
        case Value(dtype=dtype):
            return f"the type {dtype}"
        case List(feature=inner) | LargeList(feature=inner):
            return (
                f"lists ({type(inner).__name__ if not isinstance(inner, Value) else inner.dtype})"
            )
        case dict():
            return f"structs ({', '.join(feature)})"
    return f"the type {type(feature).__name__}"
