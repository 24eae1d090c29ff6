"""Training in several processes, here on CPUs, is the training of one."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from pydantic import BaseModel, ValidationError
from sentence_transformers import SentenceTransformer

from tests.small_channel import make_examples
from thumbtune.clip.models import find_model, folder_of
from thumbtune.data.thumbnails import DamagedThumbnailError
from thumbtune.learning.candidates import Candidate, Recipe, given_candidate
from thumbtune.learning.evaluation import NotFiniteError
from thumbtune.learning.processes import ProcessesError, check_devices, run_in_processes
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.learning.training import Arguments
from thumbtune.parameters import EvaluationParameters, NegativesParameters, TrainingParameters
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.train_model import train_model

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("prefect_harness")]


class Job(BaseModel):
    """Anything."""

    name: str


@pytest.fixture
def examples(workspace: Workspace) -> Table:
    """Of 61 rows to train on, which cannot be shared equally, and 13 to validate.

    One negative belongs to seven rows, so seven batches at least have room.
    """
    rows = []
    for place, row in enumerate(make_examples(workspace, 74)):
        split = "train" if place < 61 else "valid"
        negative = "not this" if place < 7 else f"not {place}"
        titles = {"title": f"{row.title} {place}", "title_neg": negative}
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
        workspace, find_model("sample"), examples, *given(parameters), measures, 42, "float32"
    )


def given(parameters: TrainingParameters) -> tuple[Candidate, list[str], TrainingParameters]:
    """What the step is asked for by `training.recipe: given`."""
    recipe = Recipe(training=parameters, negatives=NegativesParameters())
    return given_candidate(recipe), ["train"], parameters


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
    steps = 7 if batches == "no_duplicates" else 4
    assert len(one.history) == 3 * (steps + 1)
    losses, expected = (
        [point.train_loss or point.valid_loss for point in run.history] for run in (two, one)
    )
    assert losses == pytest.approx(expected, rel=1e-4)
    assert [p.valid_mrr for p in two.history] == [p.valid_mrr for p in one.history]


def test_when_one_process_fails_all_end_and_its_reason_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines: list[str] = []
    with pytest.raises(ProcessesError) as raised:
        run_in_processes("tests.failing_process", Job(name="nobody expects it"), 2, lines.append)
    assert str(raised.value) == (
        "training.processes: one of 2 processes failed: rank 1 cannot go on"
    )
    assert lines in ([], ["nobody expects it"])
    assert "Traceback" in capsys.readouterr().err


def test_what_a_user_can_mend_is_raised_as_what_it_is_and_nothing_more_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DamagedThumbnailError, match=r"^a\.jpg is damaged$"):
        run_in_processes("tests.failing_process", Job(name="the user can mend it"), 2, print)
    assert capfd.readouterr().err == ""


def test_a_training_that_diverges_in_several_processes_says_so_in_one_sentence(
    workspace: Workspace, examples: Table, capfd: pytest.CaptureFixture[str]
) -> None:
    diverging = TrainingParameters(epochs=1, scale=1e39, processes=2)
    measures = EvaluationParameters()
    model = find_model("sample")
    with pytest.raises(NotFiniteError, match=r"lower training\.learning_rate"):
        train_model(workspace, model, examples, *given(diverging), measures, 42, "float32")
    assert "Traceback" not in capfd.readouterr().err


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
