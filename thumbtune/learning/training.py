"""Fine-tune with sentence-transformers."""

import contextlib
import gc
import tempfile
from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.util.distributed import get_world_size
from transformers import PrinterCallback, TrainerCallback

from thumbtune.clip.features import reads_features
from thumbtune.data.thumbnails import Example
from thumbtune.learning.batches import SAMPLERS
from thumbtune.learning.callbacks import VALID_MRR, KeptWeights
from thumbtune.learning.columns import feature_dataset, training_dataset
from thumbtune.learning.evaluation import RecallEvaluator
from thumbtune.learning.loss import ranking_loss
from thumbtune.learning.trained_model import LossPoint
from thumbtune.learning.weights import set_parameters, trainable_parameters
from thumbtune.parameters import EvaluationParameters, TrainingParameters
from thumbtune.store.workspace import Workspace

BY_MODALITY = {"no column": "its modality"}
"""Of a model with a Router the Trainer wants a mapping that is not empty; a column that it does not
name goes where its modality leads."""


class Arguments(SentenceTransformerTrainingArguments):
    """Arguments of a Trainer that leaves all GPUs but the first alone.

    It would split each batch over them (`nn.DataParallel`), and take as many times `batch_size`.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs of this process."""
        return min(1, super().n_gpu)


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
        valid: rows to validate on; without any the last epoch is kept.
        callbacks: of the Trainer, such as `Progress`.

    Returns:
        The history of the losses, and the epoch whose weights the model has now.
    """
    best = parameters.keep_best_epoch and len(valid) > 0
    kept = KeptWeights(trainable_parameters(model), parameters.interpolation, best)
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
                eval_strategy="epoch" if valid else "no",
                save_strategy="no",
                logging_steps=1,
                seed=seed,
                data_seed=seed,
                disable_tqdm=True,  # `Progress` is ours
                report_to="none",  # trackers are told of the whole version, when it is measured
                dataloader_pin_memory=torch.cuda.is_available(),
                dataloader_drop_last=processes > 1,  # or it warns; `EqualShares` leaves nothing out
                router_mapping=BY_MODALITY,
                ddp_find_unused_parameters=False,  # it looks at the last column alone
            ),
            train_dataset=dataset(train),
            eval_dataset=dataset(valid) if valid else None,
            loss=ranking_loss(model, parameters),
            evaluator=RecallEvaluator(workspace, valid, "valid", evaluation) if valid else None,
            callbacks=[kept, *callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        with collector_spared():
            trainer.train()
    set_parameters(model, kept.parameters)
    return _history(trainer.state.log_history), kept.epoch


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
