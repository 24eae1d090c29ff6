"""The last linear maps of a model, one for pictures and one for titles: what is trained of it.

Wherever a model's own towers end in such maps, these are found by running a picture and a title
through it and looking what made the vector. To any other model maps are added that begin at the
identity.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from transformers import CLIPModel, MetaClip2Model

from thumbtune.errors import UserError

Kind = Literal["image", "text"]
KINDS: tuple[Kind, Kind] = ("image", "text")

CLIPS = (CLIPModel, MetaClip2Model)
"""Of one structure: two towers that are chains of layers, a norm and a projection."""

PROBES: dict[Kind, list[Any]] = {
    "image": [Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")],
    "text": ["A cat", "Two birds on a wire, and what they see from there"],
}

LAST = 16
"""Calls of modules that are remembered of a run; the last map is among the very last."""


class TwoSpacesError(UserError):
    """A model's vectors of pictures and of titles cannot be compared."""


class End(NamedTuple):
    """What a tower's output passes at last."""

    entrance: nn.Module
    """Before the map. What it adds, its `bias` if it has one, is lowered by a closed form."""
    linear: nn.Linear


class Shift(nn.Module):
    """Adds a bias of the model's, without which features are stored: versions differ in it."""

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Of shape (inputs, width), as comes out."""
        return hidden + self.bias


Ends = dict[Kind, End]


def ends_of(model: SentenceTransformer) -> Ends | None:
    """The last maps of a model that embeds both pictures and titles; None if it has none."""
    if (added := added_maps(model)) is not None:
        return {kind: End(nn.Identity(), added.sub_modules[kind][0].linear) for kind in KINDS}  # type: ignore[index]
    clip: Any = getattr(model[0], "model", None)
    if isinstance(clip, CLIPS):
        return {
            "image": End(clip.vision_model.post_layernorm, clip.visual_projection),
            "text": End(clip.text_model.final_layer_norm, clip.text_projection),
        }
    if model[0] not in FOUND:
        FOUND[model[0]] = _found(model)
    return FOUND[model[0]]


FOUND: WeakKeyDictionary[nn.Module, Ends | None] = WeakKeyDictionary()
"""The ends of models that were looked at; they are alive as long as their model is."""


def is_clips(model: SentenceTransformer) -> bool:
    """Whether the last maps of a model are CLIP's projections."""
    return isinstance(getattr(model[0], "model", None), CLIPS) and not added_maps(model)


def behind(model: SentenceTransformer) -> list[nn.Module]:
    """What stands behind the first module and changes a cosine: not a mere scaling to length 1."""
    return [module for module in list(model)[1:] if not isinstance(module, Normalize)]


def added_maps(model: SentenceTransformer) -> Router | None:
    """The maps that `add_maps` added, in a saved model too."""
    after = behind(model)
    last = after[-1] if after else None
    if not isinstance(last, Router) or set(last.sub_modules) != set(KINDS):
        return None
    return last if all(map(_is_plain, last.sub_modules.values())) else None


def _is_plain(route: Any) -> bool:
    """Whether a route is a linear map of vectors, and nothing more."""
    return (
        len(route) == 1
        and isinstance(route[0], Dense)
        and isinstance(route[0].activation_function, nn.Identity)
        and route[0].linear.bias is not None
    )


def add_maps(model: SentenceTransformer) -> None:
    """Add two linear maps to a model, one a modality, which change nothing at first.

    They are sentence-transformers' own modules, so the saved model loads as any other does.

    Raises:
        TwoSpacesError: it embeds pictures and titles in spaces of their own.
    """
    sizes = {kind: embedded(model, kind).shape[1] for kind in KINDS}
    if len(set(sizes.values())) > 1:
        raise TwoSpacesError(
            f"model: it embeds a picture as {sizes['image']} numbers and a title as "
            f"{sizes['text']}, which cannot be compared. Choose a model that embeds both in one "
            "space, such as sentence-transformers/clip-ViT-L-14."
        )
    place = len(model)
    while isinstance(model[place - 1], Normalize):
        place -= 1
    maps = Router({kind: [_identity(sizes[kind])] for kind in KINDS})
    model.insert(place, maps.to(model.device))


def _identity(size: int) -> Dense:
    weight, bias = torch.eye(size), torch.zeros(size)
    plain = nn.Identity()
    return Dense(size, size, activation_function=plain, init_weight=weight, init_bias=bias)


@torch.no_grad()
def embedded(model: SentenceTransformer, kind: Kind) -> Tensor:
    """The vectors of two probes, shape (2, dimensions)."""
    return model.encode(PROBES[kind], convert_to_tensor=True, show_progress_bar=False)


def _found(model: SentenceTransformer) -> Ends | None:
    was_training = model.training
    model.eval()
    found = {kind: end for kind in KINDS if (end := _end(model, kind))}
    model.train(was_training)
    maps = {id(end.linear) for end in found.values()}
    return found if len(maps) == len(KINDS) else None


Call = tuple[nn.Module, Tensor, Tensor]
"""A module, what it was given and what it gave."""


@torch.no_grad()
def _end(model: SentenceTransformer, kind: Kind) -> End | None:
    """What made the vectors of the probes: a linear map of the first module, and what fed it."""
    first: Any = model[0]
    calls = deque[Call](maxlen=LAST)
    watched = [part for part in first.modules() if isinstance(part, (nn.Linear, nn.LayerNorm))]
    hooks = [part.register_forward_hook(_noting(calls)) for part in watched]
    try:
        ready = batch_to_device(first.preprocess(PROBES[kind]), model.device)
        vectors = first(ready).get("sentence_embedding")
    finally:
        for hook in hooks:
            hook.remove()
    for linear, given, gave in reversed(calls):
        if isinstance(linear, nn.Linear) and vectors is not None and torch.equal(gave, vectors):
            return End(_entrance(given, calls), linear)
    return None


def _noting(calls: deque[Call]) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, given: Any, gave: Any) -> None:
        if given and isinstance(gave, Tensor):
            calls.append((module, given[0], gave))

    return note


def _entrance(given: Tensor, calls: deque[Call]) -> nn.Module:
    """The bias that was added last to what a map was given, whole or at one of its tokens."""
    for module, _, gave in reversed(calls):
        if module.bias is not None and gave.shape[-1] == given.shape[-1] and _feeds(gave, given):
            return Shift(module.bias)  # type: ignore[arg-type]
    return nn.Identity()


def _feeds(gave: Tensor, given: Tensor) -> bool:
    if len(gave) != len(given):
        return False
    tokens = gave.reshape(len(given), -1, gave.shape[-1])
    return bool((tokens == given[:, None]).all(dim=-1).any(dim=1).all())
