"""The choice of a channel's last sweep, for the runs that come after it."""

import logging
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from thumbtune.channel.registry import SWEEP, Registry
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import Candidate, Recipe
from thumbtune.learning.recipes import Sweep
from thumbtune.parameters import TrainParameters
from thumbtune.store.model_reference import ModelReference

logger = logging.getLogger(__name__)


class Swept(BaseModel):
    """What a sweep has chosen, and by what."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    base: str
    """Fingerprint of the untouched model."""
    looked_at: list[str]
    """Ids of the videos of its train and valid."""


def keep_sweep(registry: Registry, sweep: Sweep) -> None:
    """Write down what a sweep has chosen for a channel, in the place of an earlier one's choice."""
    rows = registry.workspace.read_table(sweep.examples, Example)
    looked_at = [row.id for row in rows if row.split != "test"]
    swept = Swept(recipe=sweep.best, base=sweep.base, looked_at=looked_at)
    path = f"{registry.path}/{SWEEP}"
    registry.workspace.write(path, swept.model_dump_json(indent=1).encode())


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


def last_sweep(registry: Registry) -> Swept | None:
    """What it chose; None if there was none, or it does not tell by what it chose."""
    try:
        return Swept.model_validate_json(registry.workspace.read(f"{registry.path}/{SWEEP}"))
    except OSError:
        return None
    except ValueError:
        logger.info(
            "The last sweep's choice is not tried: its record is damaged, or an earlier "
            "thumbtune's, which does not tell what it has looked at. Sweep again to have it tried."
        )
        return None


def as_candidates(
    swept: Swept | None, model: ModelReference, examples: Sequence[Example]
) -> list[Candidate]:
    """The choice of a sweep where it has no advantage: nothing if it has looked at what is test
    now, or was made for another model."""
    if swept is None:
        return []
    test = {row.id for row in examples if row.split == "test"}
    looked_at = len(test.intersection(swept.looked_at))
    if looked_at:
        logger.info(
            "The last sweep's choice is not tried: it has looked at %d videos that are test now. "
            "Sweep with the same split to have it tried.",
            looked_at,
        )
        return []
    if swept.base != model.fingerprint:
        logger.info(
            "The last sweep's choice is not tried: it was made for another model than %s.",
            model.name,
        )
        return []
    return [Candidate(name="the last sweep's choice", recipe=swept.recipe)]
