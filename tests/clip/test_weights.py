"""A model is taken with all the weights that it embeds with, or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense
from transformers import AutoModel

from tests.tiny_clip import save_tiny_clip, save_tiny_siglip, save_tiny_text_model
from tests.tiny_encoders import (
    save_altclip,
    save_clip_with,
    save_two_models,
    save_vision_text_dual_encoder,
)
from thumbtune.clip.models import NotAClipError, find_model, load_model
from thumbtune.clip.weights import IncompleteModelError

Save = Callable[[Path], Path]


def without(folder: Path, word: str, file: str = "model.safetensors") -> Path:
    """A model in whose file the weights are missing whose names have a word in them."""
    weights = load_file(folder / file)
    left = {name: weight for name, weight in weights.items() if word not in name}
    assert len(left) < len(weights)
    save_file(left, folder / file, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("save", "lacks"),
    [
        (save_tiny_clip, "visual_projection"),
        (save_tiny_clip, "text_model.embeddings"),
        (save_tiny_siglip, "text_model.head.bias"),
        (save_altclip, "text_projection"),
        (save_vision_text_dual_encoder, "vision_model.encoder.layer.1.attention.attention.query"),
        (save_tiny_text_model, "embeddings.LayerNorm"),
    ],
)
def test_a_model_that_lacks_weights_is_refused(save: Save, lacks: str, tmp_path: Path) -> None:
    folder = without(save(tmp_path / "model"), lacks)
    with pytest.raises(IncompleteModelError, match=r"^model: .* lacks weights: 0\.model\."):
        load_model(find_model(str(folder)))


def test_a_model_of_one_route_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = save_two_models(tmp_path / "model")
    [bert] = folder.glob("text_0_*/model.safetensors")
    without(bert.parent, "word_embeddings")
    with pytest.raises(IncompleteModelError, match=r"lacks weights: .*word_embeddings\.weight"):
        load_model(find_model(str(folder)))


def test_a_layer_behind_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = save_clip_with(Dense(8, 6))(tmp_path / "model")
    without(folder, "linear.weight", "1_Dense/model.safetensors")
    with pytest.raises(NotAClipError, match=r"cannot be loaded: .*Dense"):
        load_model(find_model(str(folder)))


def test_what_no_vector_depends_on_may_be_missing(tmp_path: Path) -> None:
    folder = save_tiny_text_model(tmp_path / "model", dropout=0.0)
    without(folder, "pooler")
    expected = load_model(find_model(str(save_tiny_text_model(tmp_path / "whole", dropout=0.0))))
    model = load_model(find_model(str(folder)))
    np.testing.assert_allclose(model.encode(["A title"]), expected.encode(["A title"]), atol=1e-6)


def in_one_pickle(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def in_shards(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(places.values())) > 1


@pytest.mark.parametrize("store", [in_one_pickle, in_shards])
def test_a_model_is_whole_however_its_weights_are_stored(
    store: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = save_tiny_clip(tmp_path / "model")
    expected = load_model(find_model(str(folder))).encode(["A title"])
    store(folder)
    again = load_model(find_model(str(folder))).encode(["A title"])
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_a_model_whose_weights_are_no_numbers_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(IncompleteModelError, match=r"no numbers: 0\.model\.visual_projection"):
        load_model(find_model(str(folder)))
