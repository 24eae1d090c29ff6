"""Training in several processes, here on CPUs, is the training of one."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from sample import MODEL
from tasks.models import folder_of, resolve_model
from tasks.parameters import EvaluationParameters, TrainingParameters
from tasks.processes import ProcessesError, check_devices, run_in_processes
from tasks.thumbnails import DamagedThumbnailError
from tasks.training import Arguments, EqualShares, TrainedModel, train_model
from tasks.workspace import Table, Workspace
from tests.small_channel import make_examples

pytestmark = pytest.mark.whole


class Job(BaseModel):
    """Anything."""

    name: str


@pytest.fixture
def examples(workspace: Workspace) -> Table:
    """Of 64 rows to train on without equal titles, so that every batch is full; 12 to validate."""
    rows = []
    for place, row in enumerate(make_examples(workspace, 76)):
        split = "train" if place < 64 else "valid"
        titles = {"title": f"{row.title} {place}", "title_neg": f"not {place}"}
        rows.append(row.model_copy(update={**titles, "split": split}))
    return workspace.write_table("examples", rows)


def trained_in(
    processes: int,
    workspace: Workspace,
    examples: Table,
    batches: Literal["no_duplicates", "plain"],
) -> TrainedModel:
    parameters = TrainingParameters(
        epochs=3, learning_rate=0.001, symmetric=True, processes=processes, batches=batches
    )
    measures = EvaluationParameters()
    return train_model(
        workspace, resolve_model("sample"), examples, parameters, measures, 42, "float32"
    )


def projections(folder: Path) -> torch.Tensor:
    parameters = SentenceTransformer(str(folder), device="cpu").named_parameters()
    return torch.cat(
        [
            value.detach().flatten()
            for name, value in parameters
            if "proj." in name or "_projection" in name
        ]
    )


@pytest.mark.parametrize("batches", ["no_duplicates", "plain"])
def test_two_processes_train_the_model_that_one_does(
    workspace: Workspace, examples: Table, batches: Literal["no_duplicates", "plain"]
) -> None:
    one, two = (trained_in(processes, workspace, examples, batches) for processes in (1, 2))
    first, second = (folder_of(run.model, workspace) for run in (one, two))
    assert first != second
    untouched = projections(MODEL)
    moved = torch.norm(projections(first) - untouched)
    apart = torch.norm(projections(first) - projections(second))
    assert moved > 0.01 * torch.norm(untouched)
    assert apart < 1e-4 * moved
    assert two.best_epoch == one.best_epoch
    assert len(one.history) == 3 * (4 + 1)
    losses, expected = (
        [point.train_loss or point.valid_loss for point in run.history] for run in (two, one)
    )
    assert losses == pytest.approx(expected, rel=1e-4)
    assert [p.valid_mrr for p in two.history] == [p.valid_mrr for p in one.history]


def test_when_one_process_fails_all_end_and_its_reason_is_told() -> None:
    lines: list[str] = []
    with pytest.raises(ProcessesError) as raised:
        run_in_processes("tests.failing_process", Job(name="it"), 2, lines.append)
    assert str(raised.value) == (
        "training.processes: one of 2 processes failed: rank 1 cannot go on"
    )
    assert lines in ([], ['{"name":"it"}'])


def test_an_error_that_the_caller_mends_comes_through_as_itself() -> None:
    with pytest.raises(DamagedThumbnailError, match=r"^a long story\nrank 1 cannot go on$"):
        run_in_processes(
            "tests.failing_process", Job(name="damaged"), 2, print, [DamagedThumbnailError]
        )


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, message in ((1, "has 1 GPU, "), (3, "has 3 GPUs, ")):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        with pytest.raises(ProcessesError, match=message):
            check_devices(4)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    check_devices(4)


def test_one_process_leaves_the_other_gpus_alone_and_batches_as_they_are(tmp_path: Path) -> None:
    arguments = Arguments(output_dir=str(tmp_path), per_device_train_batch_size=16)
    arguments._n_gpu = 4  # what the Trainer finds
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == 16


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch_size is 16, .*processes=3 .*multiple of 3"):
        TrainingParameters(processes=3)


@settings(deadline=None)
@given(
    titles=st.lists(st.integers(0, 20).map(str), min_size=1, max_size=40),
    processes=st.integers(2, 4),
)
def test_the_shares_of_a_batch_are_equal_and_hold_no_title_twice_together(
    titles: list[str], processes: int
) -> None:
    def sampler() -> NoDuplicatesBatchSampler:
        return NoDuplicatesBatchSampler(
            Dataset.from_dict({"title": titles}),
            batch_size=2 * processes,
            drop_last=False,
            generator=torch.Generator(),
            seed=0,
        )

    shares = list(EqualShares(sampler(), processes))
    together = [
        [row for share in shares[start : start + processes] for row in share]
        for start in range(0, len(shares), processes)
    ]
    assert len(shares) % processes == 0
    for batch, start in zip(together, range(0, len(shares), processes), strict=True):
        assert len({len(share) for share in shares[start : start + processes]}) == 1
        assert len({titles[row] for row in batch}) == len(batch)
    whole = [batch for batch in sampler() if len(batch) >= processes]
    assert together == [batch[: len(batch) - len(batch) % processes] for batch in whole]
