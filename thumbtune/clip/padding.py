"""A title's vector must not depend on the titles beside it, nor a long one stop a run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import CLIPModel

from thumbtune.clip.unreadable import CHOOSE
from thumbtune.errors import UserError

ALIKE = 1e-4
"""By how much a number of a unit vector may differ: batches are rounded otherwise."""

SHORT, LONG = "A cat", "A title that is much longer than any that YouTube takes " * 40

WORDS = ("title", "that", "cat", "dog", "кот", "лев", "猫", "犬", "개", "소", "قط", "כלב", "7")
"""Of many scripts: whatever language a model is for, it tells some of them apart."""

UNKNOWN = 512
"""Tokens to which titles are cut where nothing tells how many a model reads, and it fails."""

Settings = dict[str, Any]
"""Of a tokenizer's call."""


class UnevenTitlesError(UserError):
    """A title's vector depends on the titles beside it."""


class UnreadTitlesError(UserError):
    """To the model all titles are one."""


def embed_titles_alike(model: SentenceTransformer, name: str) -> None:
    """Have titles cut to the length that the model can read, and padded to one length where their
    vectors would otherwise depend on their neighbours; both is saved with it.

    Towers that pool the last position, as SigLIP's does, were trained with a fixed length. CLIP's
    pools the end of text, behind which nothing is looked at.

    Args:
        name: of the model, for messages.

    Raises:
        UnreadTitlesError: it tells no titles apart.
        UnevenTitlesError: nothing of that helps.
    """
    module = _reader(model)
    if module is None:
        return
    _check_reads(module, name)
    longest = _positions(module)
    fits = longest is None or _limit(module) <= longest
    if isinstance(module.model, CLIPModel) and fits:
        module.preprocess([SHORT, LONG])  # fails if the tokenizer cannot pad
        return
    cut = {"truncation": True, "max_length": longest or UNKNOWN}
    changes: list[Settings] = [cut, cut | {"padding": "max_length"}]
    if not _made_alike(model, module, [{}, *changes] if fits else changes):
        raise UnevenTitlesError(
            f"model: {name} embeds a title otherwise beside a longer one, also where titles are "
            f"padded to one length: no ranking of such titles holds, so {CHOOSE}."
        )


def _reader(model: SentenceTransformer) -> Any:
    """The module that reads a title first, of which a Router has one a route; None if what reads
    titles has no positions."""
    if not model.supports("text"):
        return None
    able = [part for part in model.modules() if hasattr(part, "processing_kwargs")]
    if len(able) < 2:
        return able[0] if able else None
    seen: list[nn.Module] = []
    hooks = [part.register_forward_pre_hook(lambda part, _: seen.append(part)) for part in able]
    try:
        model.encode([SHORT], show_progress_bar=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen else None


def _check_reads(module: Any, name: str) -> None:
    """Where its files are missing, transformers makes a tokenizer that knows no word."""
    tokens = {
        frozenset(np.ravel(module.preprocess([word])["input_ids"]).tolist()) for word in WORDS
    }
    if len(tokens) == 1:
        raise UnreadTitlesError(
            f"model: {name} embeds all titles alike: its tokenizer files are missing, or it reads "
            f"no titles. Download or save it again, or {CHOOSE}."
        )


def _positions(module: Any) -> int | None:
    """Tokens that the text tower can read; None if its configuration does not tell."""
    config = module.model.config.get_text_config()
    told = getattr(config, "max_position_embeddings", None)
    return int(told) - _skipped(module) if told else None


def _skipped(module: nn.Module) -> int:
    """Positions at the begin of the table that no token has: RoBERTa's begin behind its padding."""
    tables = [part for name, part in module.named_modules() if name.endswith("position_embeddings")]
    paddings = [getattr(table, "padding_idx", None) for table in tables]
    return max((padding + 1 for padding in paddings if padding is not None), default=0)


def _limit(module: Any) -> float:
    """Tokens to which titles are cut as it is; many a tokenizer knows no limit."""
    told = module.processing_kwargs.get("text", {}).get("max_length")
    return told or module.max_seq_length or math.inf


def _made_alike(model: SentenceTransformer, module: Any, changes: Sequence[Settings]) -> bool:
    """Take the first of some changes with which titles embed alike; whether there is one."""
    before = dict(module.processing_kwargs)
    for change in changes:
        text = before.get("text", {}) | change
        module.processing_kwargs = before | {"text": text} if text else before
        try:
            if _embeds_alike(model):
                return True
        except (IndexError, RuntimeError, ValueError):  # longer than the table of positions
            if change is changes[-1]:
                raise
    return False


def _embeds_alike(model: SentenceTransformer) -> bool:
    alone, beside = (
        model.encode(titles, normalize_embeddings=True, show_progress_bar=False)[0]
        for titles in ([SHORT], [SHORT, LONG])
    )
    return bool(np.abs(alone - beside).max() <= ALIKE)
