"""How long this machine takes to encode a picture, as it was measured last."""

import time
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from thumbtune.clip.models import load_clip
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.storage import write_atomically
from thumbtune.store.workspace import Workspace

PICTURES = 4
"""That are run to measure a model for the first time: a second or two of ViT-L/14."""


class Rate(BaseModel):
    """What the last encoding by a model took here."""

    seconds: float = Field(gt=0)
    """A picture, with its decoding."""


def known_rate(workspace: Workspace, model: ModelReference) -> float | None:
    """Seconds a picture; None if this machine has not encoded by the model in the workspace."""
    try:
        return Rate.model_validate_json(_file(workspace, model).read_bytes()).seconds
    except (OSError, ValidationError):
        return None


def note_rate(workspace: Workspace, model: ModelReference, seconds: float) -> None:
    """Keep it for the next estimate."""
    file = _file(workspace, model)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, Rate(seconds=seconds).model_dump_json().encode())


def measure_rate(model: ModelReference) -> float:
    """Seconds a picture, by a few blank ones; the first is not counted."""
    loaded = load_clip(model)
    blank = Image.fromarray(np.full((360, 640, 3), 127, np.uint8))
    loaded.encode([blank])
    started = time.monotonic()
    loaded.encode([blank] * PICTURES, batch_size=PICTURES)
    return (time.monotonic() - started) / PICTURES


def _file(workspace: Workspace, model: ModelReference) -> Path:
    """It is about this machine, so it stays on it."""
    return workspace.root / "rates" / f"{model.fingerprint[:32]}.json"
