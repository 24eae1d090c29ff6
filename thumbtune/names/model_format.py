"""Formats of models that sentence-transformers does not load, told by the files of a folder."""

import json
from pathlib import Path
from typing import Any


def unread_format(folder: Path) -> str:
    """In what format a model is stored that cannot be read, and what to take instead; "" if it is
    none of those known."""
    files = {file.name for file in folder.rglob("*") if file.is_file()}
    if "adapter_config.json" in files:
        return (
            "is an adapter (PEFT), not a whole model. Merge it into its base model "
            "(`merge_and_unload` of peft), save that, and give its folder."
        )
    if any("open_clip" in name for name in files) and not _is_transformers(folder):
        return (
            "is stored in open_clip's format, which transformers does not read. Take a repository "
            "that has the same weights for transformers, such as openai/clip-vit-base-patch32."
        )
    return ""


def _is_transformers(folder: Path) -> bool:
    """Whether a configuration is one of transformers'; timm's has the same name."""
    told = json_of(folder / "config.json")
    return isinstance(told, dict) and "model_type" in told


def json_of(file: Path) -> Any:
    """What a JSON file holds; None if there is none that can be read."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
