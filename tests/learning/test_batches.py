"""What reaches the loss: every row once an epoch, whatever titles, negatives, batch, processes."""

from collections import Counter
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from tests.small_channel import make_examples
from thumbtune.clip.freezing import freeze
from thumbtune.learning.batches import DistinctBatches, EqualShares, with_filler
from thumbtune.learning.training import fine_tune
from thumbtune.parameters import EvaluationParameters, TrainingParameters
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace
from thumbtune.text.titles import same_title

Rows = list[tuple[str, str, str]]
"""Anchor, positive and negative of each row."""

few = st.integers(0, 12).map(str)
rows_of_few_values = st.lists(st.tuples(few, few, few), min_size=1, max_size=60)
hub = st.integers(1, 60).map(lambda n: [(f"p{row}", f"t{row}", "hub") for row in range(n)])
spelled = st.sampled_from(["A cat", "a CAT", "a\u200b cat", "A dog", "a bird", "a fish"])
any_rows = st.one_of(
    rows_of_few_values,
    hub,
    st.lists(st.tuples(st.integers().map(str), spelled, spelled), min_size=1, max_size=30),
)


def dataset(rows: Rows, filled: bool = False) -> Dataset:
    return Dataset.from_dict(with_filler(columns(rows)) if filled else columns(rows))


def columns(rows: Rows) -> dict[str, list[str]]:
    names = ("anchor", "positive", "negative")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def batches(rows: Rows, size: int, seed: int = 0) -> DistinctBatches:
    options: dict[str, Any] = {"drop_last": False, "generator": torch.Generator(), "seed": seed}
    return DistinctBatches(columns(rows), size, **options)


def values(rows: Rows, batch: list[int]) -> list[str]:
    """All that a batch compares, of each row once."""
    own = (
        {a, f"title {same_title(p)}", f"title {same_title(n)}"}
        for a, p, n in map(rows.__getitem__, batch)
    )
    return [value for row in own for value in row]


@pytest.mark.slow
@settings(deadline=None)
@given(rows=any_rows, size=st.integers(2, 20), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_each_epoch_has_every_row_once_in_as_many_batches_as_told_and_none_has_a_value_twice(
    rows: Rows, size: int, seed: int, epoch: int
) -> None:
    sampler = batches(rows, size, seed)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert sorted(row for batch in drawn for row in batch) == list(range(len(rows)))
    assert len(drawn) == len(sampler)
    for batch in drawn:
        assert 0 < len(batch) <= size
        assert max(Counter(values(rows, batch)).values()) == 1


def test_rows_without_rivals_fill_the_fewest_batches_evenly_and_each_epoch_anew() -> None:
    sampler = batches([(f"p{n}", f"t{n}", f"n{n}") for n in range(53)], 16)
    first = list(sampler)
    assert sorted(map(len, first)) == [13, 13, 13, 14]
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert {frozenset(batch) for batch in sampler} != {frozenset(batch) for batch in first}


def test_one_negative_of_many_rows_does_not_leave_the_others_in_batches_of_one() -> None:
    rows = [(f"p{n}", f"t{n}", "hub" if n < 20 else f"n{n}") for n in range(80)]
    assert sorted(map(len, batches(rows, 16))) == [4] * 20


@pytest.mark.slow
@settings(deadline=None)
@given(rows=any_rows, share=st.integers(1, 5), processes=st.integers(2, 4))
def test_shares_of_several_processes_are_equal_and_hold_what_one_process_draws(
    rows: Rows, share: int, processes: int
) -> None:
    whole = batches(rows, share * processes)
    shares = list(EqualShares(whole, processes, filler=len(rows)))
    assert len(shares) == len(whole) * processes
    for place, batch in enumerate(whole):
        of_batch = shares[place * processes : (place + 1) * processes]
        assert len({len(each) for each in of_batch}) == 1
        assert len(of_batch[0]) <= share
        assert [row for each in of_batch for row in each if row < len(rows)] == batch
    assert dataset(rows, filled=True)["label"][:] == [1] * len(rows) + [0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("which", ["no_duplicates", "plain"])
def test_every_row_reaches_the_loss_once_an_epoch(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, size: int, which: str
) -> None:
    """Counted where the loss gets its embeddings, by the pictures' own pixels."""
    examples = make_examples(workspace, 70)
    hub = examples[0].title
    rows = [
        row.model_copy(update={"title_neg": hub if n % 3 else examples[(n + 5) % 53].title})
        for n, row in enumerate(examples[:53])
    ]
    reached: list[int] = []
    steps: list[int] = []
    loss = MultipleNegativesRankingLoss.forward

    def counted(self: Any, features: list[dict[str, Any]], labels: Any) -> Any:
        if torch.is_grad_enabled():
            reached.extend(int(pixels.sum() * 1000) for pixels in features[0]["pixel_values"])
            steps.append(len(features[0]["pixel_values"]))
        return loss(self, features, labels)

    monkeypatch.setattr(MultipleNegativesRankingLoss, "forward", counted)
    model = SentenceTransformer(str(MODEL), device="cpu")
    freeze(model, ["projection"])
    settings = TrainingParameters.model_validate(
        {"epochs": 2, "batch_size": size, "batches": which, "learning_rate": 1e-3}
    )
    measures = EvaluationParameters()
    history, _ = fine_tune(model, workspace, rows, examples[53:], settings, measures, 1)
    assert sum(steps) == len(reached) == 2 * 53
    assert sorted(Counter(reached).values()) == [2] * 53
    assert len([point for point in history if point.train_loss is not None]) == len(steps)
