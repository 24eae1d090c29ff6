"""The choice of a channel's last sweep, for the runs that come after it."""

from thumbtune.channel.registry import SWEEP, Registry
from thumbtune.learning.candidates import Candidate, Recipe
from thumbtune.parameters import TrainParameters


def keep_sweep(registry: Registry, best: Recipe) -> None:
    """Write down what a sweep has chosen for a channel, in the place of an earlier one's choice."""
    path = f"{registry.path}/{SWEEP}"
    registry.workspace.write(path, best.model_dump_json(indent=1).encode())


def as_found(parameters: TrainParameters, best: Recipe) -> TrainParameters:
    """Parameters that train with it, and measure on the test split, at which the sweep has not
    looked: folds of all videos hold those that it was chosen by."""
    return parameters.model_copy(
        update={
            "training": best.training.model_copy(update={"recipe": "given"}),
            "negatives": best.negatives,
            "evaluation": parameters.evaluation.model_copy(update={"method": "holdout"}),
        }
    )


def last_sweep(registry: Registry) -> list[Candidate]:
    """What it chose, as a candidate; nothing if there was none, or it cannot be read."""
    try:
        recipe = Recipe.model_validate_json(registry.workspace.read(f"{registry.path}/{SWEEP}"))
    except (OSError, ValueError):
        return []
    return [Candidate(name="the last sweep's choice", recipe=recipe)]
