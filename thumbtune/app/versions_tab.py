"""The tab of the versions: how each measured, what changed, and which is in use."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from thumbtune.app.comparing import Line, differing
from thumbtune.app.in_use import Champion
from thumbtune.app.parts import ONE_AT_A_TIME, RAW, choosing, gr, header, html, or_toast, told
from thumbtune.channel.field_scores import FieldScore, last_scores
from thumbtune.channel.registry import Version
from thumbtune.learning.intervals import Interval
from thumbtune.metrics import PRIMARY
from thumbtune.use.rolling_back import roll_back

SHOWN = 20
"""Versions, the newest ones."""
HEADLINE = ("Recall@1", PRIMARY)
BY_HAND = "chosen by hand on the page"


class Measure(NamedTuple):
    """A metric of a version."""

    name: str
    value: float
    interval: Interval | None


class Row(NamedTuple):
    """A version, as it is shown."""

    version: Version
    why: str
    is_champion: bool
    is_there: bool
    """Whether it has its weights."""
    measures: list[Measure]
    later: FieldScore | None
    """How it did on videos that came after it."""
    changed: list[Line]
    """Parameters that the version before had otherwise: that one's value, and this one's."""


def rows_of(champion: Champion) -> list[Row]:
    """The newest versions, the newest first."""
    registry = champion.registry
    versions, in_use = registry.versions(), registry.champion()
    scores = last_scores(registry)
    why, before = registry.reasons(), _before(versions)
    return [
        Row(
            version=each,
            why=why.get(each.number, "was not decided on"),
            is_champion=bool(in_use and in_use.number == each.number),
            is_there=each.model.is_there(champion.workspace),
            measures=_measures(each),
            later=scores.get(each.number),
            changed=differing([before[each.number], each]) if each.number in before else [],
        )
        for each in reversed(versions[-SHOWN:])
    ]


def _before(versions: Sequence[Version]) -> dict[int, Version]:
    return {each.number: last for last, each in pairwise(versions)}


def _measures(version: Version) -> list[Measure]:
    return [
        Measure(name, version.metrics[name], version.intervals.get(name))
        for name in HEADLINE
        if name in version.metrics
    ]


def versions_html(champion: Champion, may_decide: bool) -> str:
    """All that the tab shows."""
    rows = rows_of(champion)
    in_use = next((row.version.number for row in rows if row.is_champion), 0)
    return html(
        "versions",
        rows=rows,
        in_use=in_use,
        may_decide=may_decide,
        primary=PRIMARY,
        views=champion.fit_and_views(),
    )


def versions_tab(champion: Champion, may_decide: bool, head: gr.HTML) -> None:
    """Add the tab.

    Args:
        may_decide: whether a visitor may make a version the champion.
        head: of the page; it says which version is in use.
    """
    with gr.Tab("Versions", id="versions") as tab:
        shown = choosing("versions")
    show = told(lambda: versions_html(champion, may_decide))
    tab.select(show, None, shown, **RAW)
    if not may_decide:
        return

    def choose(chosen: gr.SelectData) -> tuple[str, str]:
        roll_back(champion.registry, int(chosen.value), BY_HAND)
        return header(champion), versions_html(champion, may_decide)

    shown.select(or_toast(choose), None, [head, shown], **RAW, **ONE_AT_A_TIME)
