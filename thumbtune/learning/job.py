"""A training as a job: from a model reference to a model that is kept, in one process or more."""

import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.distributed import get_rank, get_world_size
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record

from thumbtune.clip.features import head_of
from thumbtune.clip.models import load_model
from thumbtune.clip.shards import names_that_may_learn, share_frozen
from thumbtune.clip.towers import Precision, bytes_of
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import Example
from thumbtune.learning.callbacks import EpochLog, Logger, Progress
from thumbtune.learning.candidates import Candidate, begin
from thumbtune.learning.processes import one_of_several
from thumbtune.learning.trained_model import LossPoint, TrainedModel, tuned_name
from thumbtune.learning.training import fine_tune
from thumbtune.learning.weights import trainable_parameters
from thumbtune.parameters import EvaluationParameters, TrainingParameters
from thumbtune.store.model_reference import ModelReference, hash_of
from thumbtune.store.workspace import Table, Workspace, checksum


class TrainingJob(BaseModel):
    """What the step is asked for, as other processes are told it."""

    model_config = ConfigDict(frozen=True)

    workspace: Workspace
    model: ModelReference
    examples: Table
    candidate: Candidate
    learns: tuple[str, ...]
    """The splits that are learned from; with `valid` among them nothing validates."""
    parameters: TrainingParameters
    """Of these what trains, and in how many processes."""
    evaluation: EvaluationParameters
    seed: int
    precision: Precision
    """Of the stored features."""


def train(job: TrainingJob, logger: Logger) -> TrainedModel | None:
    """Fine-tune a model and keep it in the workspace.

    Of several processes only that of rank 0 keeps it and returns something.
    """
    loaded = load_model(job.model, job.workspace)
    trainable = set_trainable(loaded, job.parameters.trainable)
    rows = job.workspace.read_table(job.examples, Example)
    learned = [row for row in rows if row.split in job.learns]
    valid = [row for row in rows if row.split == "valid" and "valid" not in job.learns]
    started = time.monotonic()
    head, encoded = head_of(job.workspace, loaded, rows, job.precision)
    logger.info("Training on %s: %s", encoded.told, job.candidate.told)
    begin(head, job.candidate, learned)
    history, best_epoch = list[LossPoint](), 0.0
    if job.candidate.recipe:
        history, best_epoch = fine_tune(
            head,
            job.workspace,
            learned,
            valid,
            job.candidate.recipe.training,
            job.evaluation,
            job.seed,
            [Progress(), EpochLog(logger)],
        )
    seconds = time.monotonic() - started
    if get_world_size() > 1:
        check_equal_weights(loaded)
    if get_rank() > 0:
        return None
    saved = save(loaded, job.workspace, tuned_name(job.model), job.model)
    return TrainedModel(
        model=saved,
        fingerprint=saved.fingerprint,
        trainable=trainable,
        trained_on=encoded.told,
        recipe=job.candidate.told,
        pairs=len(learned),
        history=history,
        best_epoch=best_epoch,
        seconds=seconds,
    )


class UnequalWeightsError(Exception):
    """The processes that trained side by side have different weights at the end."""


def check_equal_weights(model: nn.Module) -> None:
    """Compare the trained weights of all processes.

    Raises:
        UnequalWeightsError: they differ.
    """
    own = checksum(*(bytes_of(weight) for weight in trainable_parameters(model).values()))
    all_of_them = [""] * get_world_size()
    torch.distributed.all_gather_object(all_of_them, own)
    if len(set(all_of_them)) > 1:
        raise UnequalWeightsError(
            "training.processes: the processes ended with different weights. Train with "
            "training.processes=1, and report this."
        )


def save(
    model: SentenceTransformer, workspace: Workspace, name: str, base: ModelReference | None = None
) -> ModelReference:
    """Keep a model at `models/<fingerprint>/model`, so that `SentenceTransformer` loads it.

    It appears there whole or not at all. Other weights have another place, so no record ever
    comes to name weights that it was not written for.

    Args:
        base: what it was trained from; the weights that are still its own are kept once for all.
    """
    parent = workspace.root / "models"
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=parent, prefix=".model."))
    try:
        model.save_pretrained(str(scratch), create_model_card=False)
        scratch.chmod(0o755)  # mkdtemp makes it private
        digest = hash_of(scratch)
        path = f"models/{digest[:16]}/model"
        saved = ModelReference(name=name, path=path, fingerprint=digest)
        if not saved.is_intact(workspace):
            if base:
                share_frozen(scratch, names_that_may_learn(model), base, workspace)
            workspace.put(path, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return saved


@record  # tells torchrun why a process failed
def main(job: str, result: str) -> None:
    """One of several processes: read the job; the one of rank 0 writes what came of it."""
    with one_of_several(result):
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        logger = logging.getLogger("thumbtune")
        logger.setLevel(logging.INFO if get_rank() == 0 else logging.WARNING)
        trained = train(TrainingJob.model_validate_json(Path(job).read_bytes()), logger)
        if trained:
            Path(result).write_text(trained.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
