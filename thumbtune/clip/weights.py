"""Whether a loaded model has the weights that it embeds with, and numbers in them."""

from collections.abc import Iterable

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from thumbtune.clip.ends import KINDS, PROBES, Kind
from thumbtune.clip.unreadable import CHOOSE
from thumbtune.errors import UserError

Weights = dict[str, nn.Parameter]

NAMED = 2
"""Weights that a message names."""


class IncompleteModelError(UserError):
    """Weights are missing, or are no numbers."""


def check_complete(model: SentenceTransformer, name: str) -> None:
    """Look whether a model that was just loaded has all weights that were saved.

    Args:
        name: of the model, for messages.

    Raises:
        IncompleteModelError: transformers has made random numbers for what it embeds with.
    """
    missing = _missing(model)
    if missing and (needed := _needed(model, missing)):
        raise IncompleteModelError(_sentence(name, "lacks weights", needed))


def check_finite(model: SentenceTransformer, name: str) -> None:
    """Look whether all weights are numbers, which reads all of them.

    Args:
        name: of the model, for messages.

    Raises:
        IncompleteModelError: some are not, so it embeds everything as NaN.
    """
    if broken := [each for each, weight in model.named_parameters() if _is_broken(weight)]:
        raise IncompleteModelError(_sentence(name, "has weights that are no numbers", broken))


def _sentence(name: str, problem: str, weights: list[str]) -> str:
    more = f" and {len(weights) - NAMED} more" if len(weights) > NAMED else ""
    return (
        f"model: {name} {problem}: {', '.join(weights[:NAMED])}{more}. Download or save it again, "
        f"or {CHOOSE}."
    )


def _missing(model: SentenceTransformer) -> Weights:
    """The weights that transformers did not find in the file: it marks those that it found."""
    loaded = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    known = {id(weight) for module in loaded for weight in module.parameters()}
    weights = {each: weight for each, weight in model.named_parameters() if id(weight) in known}
    unmarked = {each: weight for each, weight in weights.items() if not _is_marked(weight)}
    return unmarked if len(unmarked) < len(weights) else {}


def _is_marked(weight: nn.Parameter) -> bool:
    return getattr(weight, "_is_hf_initialized", False)


def _needed(model: SentenceTransformer, missing: Weights) -> list[str]:
    """Those that a vector depends on; a pooler that nobody asks may well be new."""
    kinds = [kind for kind in KINDS if model.supports(kind)]
    needed = {each for kind in kinds for each in _behind_vectors(model, kind, missing)}
    return [name for name in missing if name in needed]


@torch.enable_grad()
def _behind_vectors(model: SentenceTransformer, kind: Kind, weights: Weights) -> Iterable[str]:
    ready = batch_to_device(model.preprocess(PROBES[kind][:1]), model.device)
    vectors: Tensor = model(ready)["sentence_embedding"]
    slopes = torch.autograd.grad(vectors.sum(), list(weights.values()), allow_unused=True)
    return [name for name, slope in zip(weights, slopes, strict=True) if slope is not None]


def _is_broken(weight: nn.Parameter) -> bool:
    """Whether there is NaN or infinity in it; a sum tells in a fraction of the time that there is
    none."""
    return not weight.detach().sum().isfinite() and not bool(weight.isfinite().all())
