"""Step: find the model to fine-tune, so that later steps agree on which weights they mean."""

from pydantic import BaseModel, ConfigDict


class ModelReference(BaseModel):
    """A sentence-transformers model in a folder, identified by its weights."""

    model_config = ConfigDict(frozen=True)

    name: str
    """As the user gave it: hub id, path or `sample`."""
    path: str
    """Absolute folder that `SentenceTransformer(path)` loads."""
    fingerprint: str
    """Hash of the weights and configuration, or the hub's commit."""
