"""What a training gives."""

from pathlib import PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict

from thumbtune.clip.freezing import TrainableParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Workspace


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
    recipe: str
    """What was done, in words."""
    pairs: int
    """That it has learned from."""
    history: list[LossPoint]
    """Empty where no Trainer was at work."""
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
