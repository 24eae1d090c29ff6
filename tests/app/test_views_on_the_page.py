"""How videos did, beside what is told of fit."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.small_channel import add_version, picture_of
from thumbtune.app.in_use import Champion
from thumbtune.app.match_tab import answered
from thumbtune.app.search_tab import found
from thumbtune.channel.registry import Registry
from thumbtune.channel.views import Views, keep_views
from thumbtune.reporting.views import relative_views
from thumbtune.store.workspace import Workspace
from thumbtune.use.matching import examples_of

pytestmark = pytest.mark.slow


def upload(path: Path) -> list[dict[str, dict[str, str]]]:
    return [{"image": {"path": str(path), "orig_name": path.name}}]


def test_they_stand_at_hits_and_neighbours_and_a_new_reading_counts_at_once(
    workspace: Workspace,
) -> None:
    version = add_version(workspace, count=100)
    registry = Registry(workspace, "youtube", "@tester")
    rows, champion = examples_of(workspace, version), Champion(workspace, registry)
    asked = upload(picture_of(workspace, rows[3])), f"{rows[3].title}\nAnother title"
    plain = answered(champion, *asked).html
    assert "views" not in plain.lower()

    rng = np.random.default_rng(0)
    for factor in (1, 1000):
        counts = {
            row.id: factor * int(n)
            for row, n in zip(rows, rng.integers(100, 900, 100), strict=True)
        }
        views = Views(read_at=datetime(2026, 11, 20, tzinfo=UTC), counts=counts)
        keep_views(registry, views)
        times = relative_views(rows, views)[rows[3].id]
        told = f"{counts[rows[3].id]:,} views, {times:.1f} times those of its time"
        assert told in answered(champion, *asked).html
        assert told in found(champion, rows[3].title, None, 48)
    unseen = [row for row in rows if row.id not in version.learned_from]
    signal = champion.fit_and_views()
    assert signal
    assert signal.videos == len(unseen) == 25
    assert signal.says in answered(champion, *asked).html.replace("&#43;", "+")
    assert 'href="https://www.youtube.com/watch?v=' in found(champion, "a boat", None, 3)
