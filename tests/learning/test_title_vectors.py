"""Titles are compared by vectors that are made once and kept."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from thumbtune.clip.models import find_model
from thumbtune.learning.title_vectors import title_vectors
from thumbtune.sample import MODEL
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Workspace

TITLES = ["A cat", "Two birds on a wire, and what they see from there", "A cat", "Ein Haus am See"]


@pytest.fixture
def model(tmp_path: Path) -> ModelReference:
    shutil.copytree(MODEL, tmp_path / "text-model")
    return find_model(str(tmp_path / "text-model"))


def test_they_are_the_models_own(workspace: Workspace, model: ModelReference) -> None:
    expected = SentenceTransformer(model.path).encode(TITLES, normalize_embeddings=True)
    for _ in range(2):
        assert np.allclose(title_vectors(workspace, model, TITLES), expected, atol=1e-6)


def test_what_is_kept_needs_no_model_and_what_is_new_does(
    workspace: Workspace, model: ModelReference
) -> None:
    before = title_vectors(workspace, model, TITLES)
    shutil.rmtree(model.path)
    assert np.array_equal(title_vectors(workspace, model, TITLES[::-1]), before[::-1])
    with pytest.raises(Exception, match="text-model"):
        title_vectors(workspace, model, [*TITLES, "A dog"])


def test_what_is_damaged_is_made_again(workspace: Workspace, model: ModelReference) -> None:
    before = title_vectors(workspace, model, TITLES)
    [stored] = (workspace.root / "title_vectors" / model.fingerprint).glob("*.safetensors")
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(content)
    assert np.allclose(title_vectors(workspace, model, TITLES), before, atol=1e-6)
