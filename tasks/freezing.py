"""Step: freeze every parameter of the model but those named by a fragment."""

from collections.abc import Sequence

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict
from torch import nn

from tasks.caching import content_key
from tasks.errors import UserError
from tasks.models import ModelReference, load_clip
from tasks.workspace import Workspace


class TrainableParameters(BaseModel):
    """What is left to train after freezing, counted in single numbers (not tensors)."""

    model_config = ConfigDict(frozen=True)

    total: int
    trainable: int
    names: list[str]

    @property
    def share(self) -> float:
        """Trainable share, 0 to 1."""
        return self.trainable / self.total

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: it points to no file."""
        return True


class NothingMatchesError(UserError, ValueError):
    """A name fragment fits no parameter of the model."""


def freeze(model: nn.Module, fragments: Sequence[str]) -> TrainableParameters:
    """Let only the parameters train whose name contains one of the fragments.

    Args:
        model: changed in place (`requires_grad`).
        fragments: such as `["projection"]`, which leaves CLIP's visual_projection.weight and
            text_projection.weight (the article, section 6).

    Raises:
        NothingMatchesError: for a fragment that fits no parameter; it lists the real names.
    """
    names = [name for name, _ in model.named_parameters()]
    for fragment in fragments:
        if not any(fragment in name for name in names):
            raise NothingMatchesError(
                f"training.trainable: no parameter's name contains {fragment!r}. "
                f"The modules of this model with parameters are: {', '.join(_modules(names))}."
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(fragment in name for fragment in fragments)
    return TrainableParameters(
        total=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        names=[name for name, p in model.named_parameters() if p.requires_grad],
    )


def _modules(parameter_names: Sequence[str]) -> list[str]:
    """The modules that own parameters, in order, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in parameter_names))


@task(
    name="freeze",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def count_trainable(model: ModelReference, fragments: Sequence[str]) -> TrainableParameters:
    """Freeze a model as training will, and count: a wrong fragment fails before any download."""
    counted = freeze(load_clip(model), fragments)
    get_run_logger().info(
        "Trainable: %s of %s parameters (%.2f %%)",
        f"{counted.trainable:,}",
        f"{counted.total:,}",
        100 * counted.share,
    )
    return counted
