"""Fine-tune with sentence-transformers."""

import contextlib
import gc
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

import torch
from datasets import Dataset
from pydantic import BaseModel, ConfigDict
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util.distributed import (
    all_gather,
    all_gather_with_grad,
    get_rank,
    get_world_size,
)
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from thumbtune.clip.features import head_of, image_key, reads_features, title_key
from thumbtune.clip.freezing import TrainableParameters, freeze
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision, bytes_of
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.learning.batches import SAMPLERS, with_filler
from thumbtune.learning.evaluation import RecallEvaluator, article_key
from thumbtune.learning.processes import one_of_several
from thumbtune.parameters import EvaluationParameters, TrainingParameters
from thumbtune.store.model_reference import ModelReference, hash_of
from thumbtune.store.workspace import Table, Workspace, checksum

Logger = logging.Logger | logging.LoggerAdapter
VALID_MRR = f"eval_{article_key('valid', 'MRR')}"


class LossPoint(BaseModel):
    """One logged moment of training; a step has a train loss, an epoch's end the others."""

    model_config = ConfigDict(frozen=True)

    epoch: float
    train_loss: float | None = None
    valid_loss: float | None = None
    valid_mrr: float | None = None


class TrainedModel(BaseModel):
    """The fine-tuned model in the workspace, and how it came about."""

    model_config = ConfigDict(frozen=True)

    model: ModelReference
    fingerprint: str
    trainable: TrainableParameters
    trained_on: str
    """Stored features or the whole model, and why."""
    history: list[LossPoint]
    best_epoch: float
    """The epoch whose weights were kept."""
    seconds: float
    """Time spent training."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether the model is still there, with the weights that it was stored with."""
        return self.model.is_intact(workspace)

    def tuned_from(self, model: ModelReference) -> Self:
        """The same, named by a model of the same weights; an earlier run may have called it
        otherwise."""
        return self.model_copy(update={"model": self.model.called(tuned_name(model))})

    def folder(self, workspace: Workspace) -> str:
        """Of the model and its report, relative to the workspace."""
        return str(PurePosixPath(self.model.kept_at(workspace) or "").parent)


def tuned_name(model: ModelReference) -> str:
    """What a model is called that was trained from another."""
    return f"{model.name} (fine-tuned)"


def training_dataset(workspace: Workspace, examples: Sequence[Example]) -> Dataset:
    """Columns anchor (thumbnail), positive (its title) and, if there are any, negative.

    MultipleNegativesRankingLoss reads the columns by position. Thumbnails are decoded when a batch
    is drawn, so memory holds one batch of them.
    """
    columns = _columns(examples, image=lambda example: example.image, title=str)
    by_image = {example.image: example for example in examples}

    def decode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [load_image(workspace, by_image[image]) for image in batch["anchor"]]
        return {**batch, "anchor": images}

    return Dataset.from_dict(columns).with_transform(decode)


def feature_dataset(examples: Sequence[Example]) -> Dataset:
    """The same columns, of the keys of stored features."""
    return Dataset.from_dict(_columns(examples, image=image_key, title=title_key))


def _columns(
    examples: Sequence[Example], image: Callable[[Example], str], title: Callable[[str], str]
) -> dict[str, list[Any]]:
    columns = {
        "anchor": [image(example) for example in examples],
        "positive": [title(example.title) for example in examples],
    }
    if all(example.title_neg for example in examples):
        columns["negative"] = [title(example.title_neg or "") for example in examples]
    return with_filler(columns) if get_world_size() > 1 else columns


class Arguments(SentenceTransformerTrainingArguments):
    """Arguments of a Trainer that leaves all GPUs but the first alone.

    It would split each batch over them (`nn.DataParallel`), and take as many times `batch_size`.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs of this process."""
        return min(1, super().n_gpu)


class KeptWeights(TrainerCallback):
    """Validates the weights that would be kept, and keeps those of the best epoch or of the last.

    What would be kept is mixed with the untouched weights, and may do better or worse than what the
    training goes on with. Only the parameters that train are copied: a few megabytes, where a
    checkpoint of ViT-L/14 with its optimizer would write gigabytes to disk at every epoch.

    Args:
        untouched: the weights before the training.
        share: of the trained weights in those that are kept.
        best: keep the epoch of the highest MRR.
    """

    def __init__(self, untouched: Mapping[str, Tensor], share: float, best: bool) -> None:
        self.untouched, self.share, self.best = untouched, share, best
        self.epoch = 0.0
        self.mrr = float("-inf")
        self.trained: dict[str, Tensor] = {}
        self.parameters: dict[str, Tensor] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer before each validation."""
        self.trained = trainable_parameters(kwargs["model"])
        mixed = interpolate(self.untouched, self.trained, self.share)
        set_parameters(kwargs["model"], mixed)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each validation."""
        mrr = kwargs["metrics"][VALID_MRR]
        if mrr > self.mrr or not self.best:
            self.mrr, self.epoch = mrr, state.epoch
            self.parameters = trainable_parameters(kwargs["model"])
        set_parameters(kwargs["model"], self.trained)


class EpochLog(TrainerCallback):
    """Tells the validation of each epoch in the log of the run."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each validation."""
        metrics = kwargs["metrics"]
        self.logger.info(
            "Epoch %g: validation MRR %.3f, Recall@1 %.3f, loss %.3f",
            state.epoch,
            metrics[VALID_MRR],
            metrics[f"eval_{article_key('valid', 'Recall@1')}"],
            metrics["eval_loss"],
        )


class Progress(ProgressCallback):
    """The Trainer's progress bar with its time left, without a line for every logged number."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """The losses go to the report."""

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """Validation is short; no bar of its own."""


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that train, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def set_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put values into the parameters of these names."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def interpolate(
    untouched: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """`share` of the trained weights and the rest of the untouched (arXiv:2109.01903)."""
    return {name: torch.lerp(untouched[name], trained[name], share) for name in untouched}


@contextlib.contextmanager
def collector_spared() -> Iterator[None]:
    """Keep what is alive now out of garbage collections.

    The Trainer begins with a full one; over all imported modules it takes 0.3 s, longer than the
    training of a small channel on stored features.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def fine_tune(
    model: SentenceTransformer,
    workspace: Workspace,
    train: Sequence[Example],
    valid: Sequence[Example],
    parameters: TrainingParameters,
    evaluation: EvaluationParameters,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[list[LossPoint], float]:
    """Train the unfrozen parameters of the model in place (the article, section 7).

    Of several processes each does so with its share of every batch, and they end with equal
    weights: those that one process would have, up to rounding.

    Args:
        model: a whole CLIP, or its head on stored features.
        callbacks: of the Trainer, such as `Progress`.

    Returns:
        The history of the losses, and the epoch whose weights the model has now.
    """
    kept = KeptWeights(
        trainable_parameters(model), parameters.interpolation, parameters.keep_best_epoch
    )
    processes = get_world_size()
    share = parameters.batch_size // processes

    def dataset(rows: Sequence[Example]) -> Dataset:
        return feature_dataset(rows) if reads_features(model) else training_dataset(workspace, rows)

    model.model_card_data.widget = [{}]  # else it looks for examples; we write the card ourselves
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=Arguments(
                output_dir=scratch,
                num_train_epochs=parameters.epochs,
                per_device_train_batch_size=share,
                per_device_eval_batch_size=share,
                learning_rate=parameters.learning_rate,
                batch_sampler=SAMPLERS[parameters.batches],
                eval_strategy="epoch",
                save_strategy="no",
                logging_steps=1,
                seed=seed,
                data_seed=seed,
                disable_tqdm=True,  # `Progress` is ours
                report_to=list(parameters.report_to),
                dataloader_pin_memory=torch.cuda.is_available(),
                dataloader_drop_last=processes > 1,  # or it warns; `EqualShares` leaves nothing out
                ddp_find_unused_parameters=False,  # it looks at the last column alone
            ),
            train_dataset=dataset(train),
            eval_dataset=dataset(valid),
            loss=ranking_loss(model, parameters),
            evaluator=RecallEvaluator(workspace, valid, "valid", evaluation),
            callbacks=[kept, *callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        with collector_spared():
            trainer.train()
    set_parameters(model, kept.parameters)
    return _history(trainer.state.log_history), kept.epoch


def ranking_loss(
    model: SentenceTransformer, parameters: TrainingParameters
) -> MultipleNegativesRankingLoss:
    """Multiple negatives ranking loss (arXiv:1705.00652), as CLIP's own from both sides if asked.

    A thumbnail must pick its title among those of the batch and its negatives; if symmetric, each
    title must pick its thumbnail too, with half the weight.
    """
    loss = GatheredRankingLoss if get_world_size() > 1 else MultipleNegativesRankingLoss
    if not parameters.symmetric:
        return loss(model, scale=parameters.scale)
    return loss(
        model,
        scale=parameters.scale,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )


class GatheredRankingLoss(MultipleNegativesRankingLoss):
    """The loss of a batch whose rows are shared by several processes; each computes it whole.

    The gradient of an embedding is summed over the processes and the weights' is their mean, which
    makes it that of one process. (The library's `gather_across_devices` takes the mean of each
    share, so shares of other sizes would weigh otherwise.)
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Of all processes' rows but those that fill up.

        Args:
            embeddings: of this process, a matrix for each column, each shape (rows, dimensions).
            labels: 0 for rows that fill up, 1 for others, shape (rows,).
        """
        real = all_gather(labels) > 0
        gathered = [all_gather_with_grad(column)[real] for column in embeddings]
        return super().compute_loss_from_embeddings(gathered, labels)


def _history(log: Sequence[dict[str, float]]) -> list[LossPoint]:
    points = []
    for entry in log:
        if "loss" in entry:
            points.append(LossPoint(epoch=entry["epoch"], train_loss=entry["loss"]))
        elif "eval_loss" in entry:
            points.append(
                LossPoint(
                    epoch=entry["epoch"],
                    valid_loss=entry["eval_loss"],
                    valid_mrr=entry[VALID_MRR],
                )
            )
    return points


class TrainingJob(BaseModel):
    """What the step is asked for, as other processes are told it."""

    model_config = ConfigDict(frozen=True)

    workspace: Workspace
    model: ModelReference
    examples: Table
    parameters: TrainingParameters
    evaluation: EvaluationParameters
    seed: int
    precision: Precision
    """Of the stored features."""


def train(job: TrainingJob, logger: Logger) -> TrainedModel | None:
    """Fine-tune a model and keep it in the workspace.

    Of several processes only that of rank 0 keeps it and returns something.
    """
    loaded = load_model(job.model, job.workspace)
    trainable = freeze(loaded, job.parameters.trainable)
    rows = job.workspace.read_table(job.examples, Example)
    splits = {name: [row for row in rows if row.split == name] for name in ("train", "valid")}
    started = time.monotonic()
    head, encoded = head_of(job.workspace, loaded, rows, job.precision)
    logger.info("Training on %s", encoded.told)
    history, best_epoch = fine_tune(
        head,
        job.workspace,
        splits["train"],
        splits["valid"],
        job.parameters,
        job.evaluation,
        job.seed,
        [*([Progress()] if sys.stderr.isatty() else []), EpochLog(logger)],
    )
    seconds = time.monotonic() - started
    if get_world_size() > 1:
        check_equal_weights(loaded)
    if get_rank() > 0:
        return None
    saved = save(loaded, job.workspace, tuned_name(job.model))
    return TrainedModel(
        model=saved,
        fingerprint=saved.fingerprint,
        trainable=trainable,
        trained_on=encoded.told,
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


def save(model: SentenceTransformer, workspace: Workspace, name: str) -> ModelReference:
    """Keep a model at `models/<fingerprint>/model`, so that `SentenceTransformer` loads it.

    It appears there whole or not at all. Other weights have another place, so no record ever
    comes to name weights that it was not written for.
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
