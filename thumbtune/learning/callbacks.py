"""What happens between the epochs of a training."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from thumbtune.learning.evaluation import article_key
from thumbtune.learning.weights import interpolate, set_parameters, trainable_parameters
from thumbtune.metrics import PRIMARY
from thumbtune.progress import progress

Logger = logging.Logger | logging.LoggerAdapter


VALID_MRR = f"eval_{article_key('valid', PRIMARY)}"


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
        if control.should_evaluate:
            set_parameters(kwargs["model"], mixed)
        else:
            self.epoch, self.parameters = state.epoch, mixed

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


class Progress(TrainerCallback):
    """Tells how many steps are done."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer, which knows the steps by then."""
        self.shown = ExitStack()
        self.advance = self.shown.enter_context(progress("Training steps", state.max_steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer."""
        self.advance(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer."""
        self.shown.close()
