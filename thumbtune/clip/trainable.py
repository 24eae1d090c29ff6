"""What of a model is trained: what is asked for, or what suits the model."""

from collections.abc import Sequence
from typing import cast

from sentence_transformers import SentenceTransformer
from torch import nn

from thumbtune.clip.ends import Ends, add_maps, added_maps, behind, ends_of, is_clips
from thumbtune.clip.freezing import TrainableParameters, freeze, train_only
from thumbtune.parameters import AUTO


def set_trainable(model: SentenceTransformer, asked: Sequence[str]) -> TrainableParameters:
    """Let the parameters train that are asked for; all others are frozen.

    Args:
        model: changed in place; linear maps may be added to it, which begin at the identity.
        asked: fragments of names, or `AUTO`: CLIP's projections, as in the article, else the last
            linear map of each tower, else maps that are added.

    Raises:
        NothingMatchesError: for a fragment that fits no parameter.
        TwoSpacesError: pictures and titles have no space in common to which maps can be added.
    """
    if tuple(asked) != AUTO:
        return freeze(model, asked)
    ends = _own_ends(model)
    if ends is None:
        add_maps(model)
        ends = ends_of(model) or {}
    weights = [cast(nn.Parameter, end.linear.weight) for end in ends.values()]
    return train_only(model, weights, _why(model))


def _own_ends(model: SentenceTransformer) -> Ends | None:
    """The model's own last maps, if nothing comes behind them, or those that a version has."""
    return ends_of(model) if added_maps(model) or not behind(model) else None


def _why(model: SentenceTransformer) -> str:
    if added_maps(model):
        return (
            "two linear maps added behind the model, begun at the identity: it has none at its "
            "end for pictures and for titles"
        )
    if is_clips(model):
        return "CLIP's two projections, as in the article"
    return "the last linear map of each tower"
