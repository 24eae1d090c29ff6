"""A metric that is added by the steps of CONTRIBUTING.md to the letter."""

import re

import numpy as np
import pytest

from tests.documentation import ROOT
from thumbtune import metrics
from thumbtune.learning.evaluation import (
    Prediction,
    random_rank_metrics,
    ranking_intervals,
    ranking_metrics,
)
from thumbtune.learning.promotion import paired_difference
from thumbtune.reporting.cards import metric_title

RECIPE = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a metric")[2]
RANKS = np.array([1, 2, 3, 4, 9, 1])


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> metrics.Metric:
    [code] = re.findall(r"^```python\n(.*?)^```$", RECIPE, re.DOTALL | re.MULTILINE)
    table = dict(vars(metrics))
    exec(code, table)
    added: metrics.Metric = table["MRR_AT_3"]
    monkeypatch.setattr(metrics, "OF_RANKINGS", [*metrics.OF_RANKINGS, added])
    return added


def test_it_is_measured_in_both_directions() -> None:
    expected = (1 + 1 / 2 + 1 / 3 + 1) / 6
    for way in metrics.WAYS:
        assert ranking_metrics(RANKS, (1,), way)[f"{way}MRR@3"] == pytest.approx(expected)
        low, high = ranking_intervals(RANKS, (1,), way)[f"{way}MRR@3"]
        assert 0 <= low < expected < high <= 1


def test_its_chance_level_is_what_a_random_ranking_gets() -> None:
    texts = np.array([0, 0, 1, 2, 3, 4, 4, 5])
    draw = np.random.default_rng(0)
    gains = []
    for _ in range(4000):
        for query in texts:
            rank = 1 + int(np.flatnonzero(draw.permutation(texts) == query)[0])
            gains.append(1 / rank if rank <= 3 else 0.0)
    expected = random_rank_metrics(texts, (1,))["MRR@3"]
    assert expected == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(gains)))


def test_models_can_be_compared_by_it() -> None:
    def answers(ranks: list[int]) -> list[Prediction]:
        shown = {"similarity": 0.5, "top_title": "", "top_similarity": 0.5, "split": "test"}
        return [Prediction(video_id=str(n), rank=rank, **shown) for n, rank in enumerate(ranks)]

    found = paired_difference("champion", answers([1, 1, 2]), answers([4, 2, 2]), "MRR@3")
    assert (found.challenger, found.other) == pytest.approx((5 / 6, 1 / 3))


def test_reports_and_cards_name_it(added: metrics.Metric) -> None:
    assert metrics.described("text-to-image_MRR@3").metric is added
    assert metric_title("text-to-image_MRR@3") == "MRR@3, title → thumbnail"
