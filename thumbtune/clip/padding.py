"""A title's vector must not depend on the titles beside it, nor a long one stop a run."""

from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import CLIPModel

from thumbtune.errors import UserError

ALIKE = 1e-4
"""By how much a number of a unit vector may differ: batches are rounded otherwise."""

SHORT, LONG = "A cat", "A title that is much longer than any that YouTube takes " * 40


class UnevenTitlesError(UserError):
    """A title's vector depends on the titles beside it."""


def embed_titles_alike(model: SentenceTransformer, name: str) -> None:
    """Have titles padded to one length where their vectors would otherwise depend on their
    neighbours, and cut to the length that the model can read; both is saved with it.

    Towers that pool the last position, as SigLIP's does, were trained with a fixed length. CLIP's
    pools the end of text, behind which nothing is looked at.

    Args:
        name: of the model, for messages.

    Raises:
        UnevenTitlesError: nothing of that helps.
    """
    module: Any = model[0]
    if not model.supports("text") or not hasattr(module, "processing_kwargs"):
        return
    longest = _positions(module)
    if isinstance(module.model, CLIPModel) and (module.max_seq_length or longest + 1) <= longest:
        return
    before = dict(module.processing_kwargs)
    cut = {"truncation": True, "max_length": longest}
    for more in ({}, cut, cut | {"padding": "max_length"}):
        text = before.get("text", {}) | more
        module.processing_kwargs = before | {"text": text} if text else before
        if _embeds_alike(model):
            return
    raise UnevenTitlesError(
        f"model: {name} embeds a title otherwise beside a longer one, also where titles are padded "
        "to one length: no ranking of such titles holds. Choose another model, such as "
        "sentence-transformers/clip-ViT-L-14."
    )


def _positions(module: Any) -> int:
    """Tokens that the text tower can read."""
    config = module.model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or module.max_seq_length or 512)


def _embeds_alike(model: SentenceTransformer) -> bool:
    try:
        alone, beside = (
            model.encode(titles, normalize_embeddings=True, show_progress_bar=False)[0]
            for titles in ([SHORT], [SHORT, LONG])
        )
    except (IndexError, RuntimeError, ValueError):  # longer than the table of positions
        return False
    return bool(np.abs(alone - beside).max() <= ALIKE)
