"""Vectors of titles by the model that compares them: made once for each title, and kept."""

from collections.abc import Sequence

import numpy as np
import torch

from thumbtune.clip.features import FeatureStore, title_key
from thumbtune.clip.models import load_model
from thumbtune.data.negatives import Embeddings
from thumbtune.learning.evaluation import embed_titles
from thumbtune.progress import progress
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Workspace

TITLES_AT_ONCE = 1024
"""What a killed run may lose: some minutes of a large model."""


def title_vectors(workspace: Workspace, model: ModelReference, titles: Sequence[str]) -> Embeddings:
    """Unit vectors, shape (titles, dimensions); the model is loaded if some are not stored."""
    store = FeatureStore(workspace, f"title_vectors/{model.fingerprint}")
    keys = [title_key(title) for title in titles]
    found = store.read(keys)
    lacking = {key: title for key, title in zip(keys, titles, strict=True) if key not in found}
    found |= _embedded(workspace, model, lacking, store) if lacking else {}
    return torch.cat([found[key] for key in keys]).numpy()


def _embedded(
    workspace: Workspace, model: ModelReference, titles: dict[str, str], store: FeatureStore
) -> dict[str, torch.Tensor]:
    """Those of keys, stored."""
    loaded, made = load_model(model, workspace), dict[str, torch.Tensor]()
    keys = sorted(titles, key=lambda key: len(titles[key]))  # of like length together: less padding
    with progress("Comparing titles", len(keys)) as advance:
        for start in range(0, len(keys), TITLES_AT_ONCE):
            some = keys[start : start + TITLES_AT_ONCE]
            vectors = embed_titles(loaded, [titles[key] for key in some])
            new = dict(zip(some, torch.from_numpy(np.asarray(vectors)).split(1), strict=True))
            store.write(new)
            made |= new
            advance(len(some))
    return made
