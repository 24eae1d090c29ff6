"""Tell an experiment tracker of a version: MLflow, W&B, TensorBoard and whatever else transformers
reports to.

The Trainer could do that by itself, but a version that is made in closed form or in folds has seen
none, and the figures that count come after it. So its callbacks are told of a whole version here,
in the order in which a Trainer calls them.

https://huggingface.co/docs/transformers/main_classes/callback
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from thumbtune.channel.registry import Version
from thumbtune.errors import UserError
from thumbtune.learning.evaluation import SplitEvaluation
from thumbtune.learning.trained_model import LossPoint
from thumbtune.parameters import in_rows


class TrackerError(UserError):
    """A tracker is unknown, not installed, or does not take what it is told."""


class Settings(TrainingArguments):
    """Of a version, in the form in which trackers read those of a Trainer."""

    def to_dict(self) -> dict[str, Any]:
        """What a tracker lists as the run's parameters."""
        return dict(self.told)

    def tell(self, told: dict[str, str]) -> "Settings":
        """List these."""
        self.told = told
        return self


class Step(NamedTuple):
    """What a tracker is told at one moment."""

    number: int
    figures: dict[str, float]


def check_trackers(names: Sequence[str]) -> None:
    """Raise TrackerError unless all trackers are known and installed."""
    for name in names:
        _callback(name)


def _callback(name: str) -> TrainerCallback:
    try:
        [callback] = get_reporting_integration_callbacks([name])
        made: TrainerCallback = callback()
    except (ValueError, RuntimeError, ImportError) as error:
        raise TrackerError(f"training.report_to: {error}") from error
    return made


def track(
    name: str,
    run_name: str,
    version: Version,
    history: Sequence[LossPoint],
    untouched: SplitEvaluation,
) -> None:
    """Tell one tracker of a version: its parameters, its losses, its metrics with 95 % intervals.

    Raises:
        TrackerError: it does not take them.
    """
    callback = _callback(name)
    settings = {"version": str(version.number), "recipe": version.recipe}
    settings |= {"videos": str(version.examples.rows), **dict(in_rows(version.parameters))}
    with tempfile.TemporaryDirectory() as scratch:
        args = Settings(output_dir=scratch, run_name=run_name, report_to="none").tell(settings)
        losses = list(_losses(history))
        end = losses[-1].number if losses else 0
        try:
            _tell(name, callback, args, [*losses, _measured(version, untouched, end)])
        except Exception as error:  # whatever the tracker's own library raises
            raise TrackerError(
                f"training.report_to: {name} could not be told of version {version.number}: "
                f"{str(error).strip(' .')}. The version itself is kept. Run again to tell it."
            ) from error


def _tell(name: str, callback: TrainerCallback, args: Settings, steps: Sequence[Step]) -> None:
    state, control = TrainerState(), TrainerControl()
    callback.on_train_begin(args, state, control, model=None)
    for step in steps:
        state.global_step = step.number
        callback.on_log(args, state, control, model=None, logs=step.figures)
    if name == "mlflow":  # transformers logs to it in the background
        sys.modules["mlflow"].flush_async_logging()
    callback.on_train_end(args, state, control, model=None)
    if name == "wandb":  # transformers leaves its run open until Python ends
        sys.modules["wandb"].finish()


def _losses(history: Sequence[LossPoint]) -> Iterator[Step]:
    """A step for each train loss; an epoch's validation belongs to its last step."""
    number = 0
    for point in history:
        number += point.train_loss is not None
        figures = {"loss": point.train_loss, "eval_loss": point.valid_loss}
        figures |= {"eval_mrr": point.valid_mrr, "epoch": point.epoch}
        yield Step(number, {name: value for name, value in figures.items() if value is not None})


def _measured(version: Version, untouched: SplitEvaluation, number: int) -> Step:
    own = _with_bounds("test", version.metrics, version.intervals)
    before = _with_bounds("test_untouched", untouched.metrics, untouched.intervals)
    return Step(number, own | before)


def _with_bounds(
    prefix: str, metrics: dict[str, float], intervals: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Each metric by a name that trackers take, and the two ends of its interval."""
    figures = {}
    for metric, value in metrics.items():
        name = f"{prefix}_{re.sub('[^a-z0-9]+', '_', metric.replace('@', '_at_').lower())}"
        figures[name] = value
        if metric in intervals:
            figures[f"{name}_low"], figures[f"{name}_high"] = intervals[metric]
    return figures
