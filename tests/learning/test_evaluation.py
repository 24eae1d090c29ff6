"""How retrieval is measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import (
    Embeddings,
    RecallEvaluator,
    random_rank_metrics,
    rank_candidates,
    ranking_metrics,
)
from thumbtune.parameters import EvaluationParameters
from thumbtune.store.workspace import Workspace


def unit_vectors(rows: int, seed: int, dimensions: int = 16) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(rows=st.integers(3, 40), k=st.integers(1, 40), seed=st.integers(0, 99))
def test_recall_at_k_is_the_top_k_accuracy_of_scikit_learn(rows: int, k: int, seed: int) -> None:
    images, titles = unit_vectors(rows, seed), unit_vectors(rows, seed + 1)
    texts, k = np.arange(rows), min(k, rows - 1)
    rank = rank_candidates(images, titles, texts, texts).rank
    expected = top_k_accuracy_score(texts, images @ titles.T, k=k)
    assert ranking_metrics(rank, [k])[f"Recall@{k}"] == pytest.approx(expected)


def test_ranks_are_the_same_in_one_block_or_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    images, titles, texts = unit_vectors(50, 0), unit_vectors(50, 1), np.arange(50) // 2
    whole = rank_candidates(images, titles, texts, texts)
    monkeypatch.setattr("thumbtune.learning.evaluation.BLOCK", 7)
    parts = rank_candidates(images, titles, texts, texts)
    assert parts.rank.tolist() == whole.rank.tolist()
    assert parts.top.tolist() == whole.top.tolist()


def test_an_equal_title_of_another_video_counts_as_right() -> None:
    angles = np.radians([0, 30, 180])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    titles = images[[1, 0, 2]]  # the first two are swapped
    assert rank_candidates(images, titles, np.arange(3), np.arange(3)).rank.tolist() == [2, 2, 1]
    same = np.array([0, 0, 1])
    assert rank_candidates(images, titles, same, same).rank.tolist() == [1, 1, 1]


def test_a_title_in_another_spelling_counts_as_ones_own(workspace: Workspace) -> None:
    titles = ["A robot", "a ROBOT\u200b", "B"]
    rows = [
        Example(id=title, title=title, title_neg=None, thumbnails={}, split="test", image="")
        for title in titles
    ]
    evaluator = RecallEvaluator(workspace, rows, "test", EvaluationParameters())
    assert evaluator.texts.tolist() == [0, 0, 1]


def test_a_model_that_embeds_everything_alike_earns_nothing() -> None:
    alike = np.ones((8, 4), np.float32) / 2
    assert rank_candidates(alike, alike, np.arange(8), np.arange(8)).rank.tolist() == [8] * 8


def test_a_model_whose_embeddings_are_not_numbers_ranks_last_not_first() -> None:
    broken = np.full((8, 4), np.nan, np.float32)
    assert rank_candidates(broken, broken, np.arange(8), np.arange(8)).rank.tolist() == [8] * 8


def test_metrics_of_known_ranks() -> None:
    metrics = ranking_metrics(np.array([1, 2, 4, 10]), [1, 5, 10], "text-to-image_")
    assert metrics == {
        "text-to-image_Recall@1": 0.25,
        "text-to-image_Recall@5": 0.75,
        "text-to-image_Recall@10": 1.0,
        "text-to-image_MRR": pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10) / 4),
        "text-to-image_median_rank": 3.0,
    }


def test_chance_of_distinct_titles_is_k_of_n_and_the_harmonic_mean_rank() -> None:
    chance = random_rank_metrics(np.arange(12), [1, 5, 20])
    assert chance["Recall@1"] == pytest.approx(1 / 12)
    assert chance["Recall@5"] == pytest.approx(5 / 12)
    assert chance["Recall@20"] == pytest.approx(1)
    assert chance["MRR"] == pytest.approx(sum(1 / n for n in range(1, 13)) / 12)


def test_chance_with_equal_titles_is_what_random_ranking_gives_on_average() -> None:
    texts = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    trials = []
    for seed in range(3000):
        images, titles = unit_vectors(8, seed, 8), unit_vectors(8, seed + 10_000, 8)
        rank = rank_candidates(images, titles, texts, texts).rank
        trials.append(ranking_metrics(rank, [1, 3]))
    chance = random_rank_metrics(texts, [1, 3])
    for name in ("Recall@1", "Recall@3", "MRR"):
        assert np.mean([trial[name] for trial in trials]) == pytest.approx(chance[name], abs=0.015)
