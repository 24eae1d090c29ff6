"""Step: fine-tune with sentence-transformers."""

from pydantic import BaseModel, ConfigDict

from tasks.freezing import TrainableParameters
from tasks.models import ModelReference


class LossPoint(BaseModel):
    """One logged moment of training; either loss may be missing."""

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
    history: list[LossPoint]
    best_epoch: float
    """The epoch whose weights were kept."""
    seconds: float
    """Time spent training."""
