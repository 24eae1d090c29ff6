"""The weights that train, as values."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
