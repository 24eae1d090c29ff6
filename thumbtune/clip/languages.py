"""What to say when a channel's titles are in a language that its model has not learned."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from thumbtune.clip.models import folder_of
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Workspace
from thumbtune.text.languages import told_if_not_english

ENGLISH_VOCABULARIES = {"clip": 49_408, "siglip": 32_000}
"""Kind of model → size of the vocabulary of those that have learned from English pages; of the
multilingual ones it is several times as large."""

FOR_MANY_LANGUAGES = "google/siglip2-base-patch16-224"


class Advice(BaseModel):
    """What a run has to say about the choice of its model."""

    model_config = ConfigDict(frozen=True)

    told: str
    """"" if there is nothing to say."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: it points to no file."""
        return True


def advice_on(titles: Sequence[str], model: ModelReference, workspace: Workspace) -> Advice:
    """Whether a model reads the language of most titles, and which does where it does not."""
    if not knows_english_alone(folder_of(model, workspace)):
        return Advice(told="")
    language = told_if_not_english(titles)
    if not language:
        return Advice(told="")
    return Advice(
        told=f"Most titles are {language}, and {model.name} has learned English: it hardly reads "
        f"them. A model for many languages may do better: --model {FOR_MANY_LANGUAGES}, or another "
        "of docs/models.md."
    )


def knows_english_alone(folder: Path) -> bool:
    """Whether a model's configuration is that of an English CLIP or SigLIP."""
    for file in folder.rglob("config.json"):
        config = json.loads(file.read_bytes())
        size = config.get("text_config", {}).get("vocab_size", 0)
        if size <= ENGLISH_VOCABULARIES.get(config.get("model_type"), -1):
            return True
    return False
