"""Versions side by side: the parameters that differ, and the metrics with their intervals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from thumbtune.channel.registry import Version
from thumbtune.metrics import LISTED
from thumbtune.parameters import in_rows


class Line(NamedTuple):
    """One parameter, or one metric, of all versions."""

    name: str
    values: list[str]
    """Of each version, in their order; "" where it has none."""


def differing(versions: Sequence[Version]) -> list[Line]:
    """The parameters that are not the same in all versions."""
    columns = [dict(in_rows(version.parameters)) for version in versions]
    names = dict.fromkeys(name for column in columns for name in column)
    lines = [Line(name, [column.get(name, "") for column in columns]) for name in names]
    return [line for line in lines if len(set(line.values)) > 1]


def measured(versions: Sequence[Version]) -> list[Line]:
    """The metrics that are listed, with their 95 % intervals where a version has kept them.

    Figures among different numbers of titles are not comparable, so that number stands first.
    """
    galleries = [f"{each.gallery:.0f}" if each.gallery else "–" for each in versions]
    metrics = [Line(name, [_with_interval(each, name) for each in versions]) for name in LISTED]
    return [Line("among so many titles", galleries), *metrics]


def _with_interval(version: Version, name: str) -> str:
    if name not in version.metrics:
        return ""
    value = f"{version.metrics[name]:.3f}"
    if name not in version.intervals:
        return value
    low, high = version.intervals[name]
    return f"{value} ({low:.3f}–{high:.3f})"


def as_json(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """The same for a program."""
    lines = differing(versions)
    return [
        {
            "version": version.number,
            "created": version.created.isoformat(),
            "videos": version.examples.rows,
            "titles": version.gallery,
            "recipe": version.recipe,
            "parameters": {line.name: line.values[column] for line in lines},
            "metrics": version.metrics,
            "intervals": version.intervals,
        }
        for column, version in enumerate(versions)
    ]
