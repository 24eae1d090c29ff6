"""A title embeds alike alone and beside others, whatever pools it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.tiny_clip import save_tiny_clip, save_tiny_siglip, save_tiny_text_model
from thumbtune.clip.models import find_model, load_model
from thumbtune.clip.padding import UnevenTitlesError, embed_titles_alike

TITLES = ["A cat", "A dog that runs", "", "x" * 300, "Größe 日本語 🔥"]


def far_apart(model: SentenceTransformer) -> float:
    """By how much the vectors of titles alone differ from those of all at once."""
    alone = [model.encode([title], normalize_embeddings=True)[0] for title in TITLES]
    return float(np.abs(np.stack(alone) - model.encode(TITLES, normalize_embeddings=True)).max())


def test_a_siglip_is_padded_to_one_length_and_stays_so_when_it_is_saved(tmp_path: Path) -> None:
    folder = save_tiny_siglip(tmp_path / "siglip")
    raw = SentenceTransformer(str(folder))
    beside = raw.encode(["A cat", "A dog that runs"], normalize_embeddings=True)[0]
    assert np.abs(raw.encode(["A cat"], normalize_embeddings=True)[0] - beside).max() > 0.01
    model = load_model(find_model(str(folder)))
    assert far_apart(model) < 1e-5
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert far_apart(SentenceTransformer(str(tmp_path / "saved"))) < 1e-5


@pytest.mark.parametrize("save", [save_tiny_clip, save_tiny_text_model])
def test_models_that_need_no_padding_get_none(tmp_path: Path, save: object) -> None:
    folder = save(tmp_path / "model")  # type: ignore[operator]
    model = load_model(find_model(str(folder)))
    assert far_apart(model) < 1e-5
    features = model.preprocess(["A cat"])
    assert features["input_ids"].shape[1] < 20


def test_titles_are_cut_to_what_a_clip_can_read_though_its_tokenizer_knows_no_limit(
    tmp_path: Path,
) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    file = folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"model_max_length": 77', '"model_max_length": 9999'))
    for limit in folder.glob("*.json"):
        limit.write_text(
            limit.read_text().replace('"max_seq_length": 77', '"max_seq_length": null')
        )
    model = load_model(find_model(str(folder)))
    assert far_apart(model) < 1e-5


def test_a_model_that_no_padding_mends_is_refused(tmp_path: Path) -> None:
    model = load_model(find_model(str(save_tiny_siglip(tmp_path / "siglip"))))

    def mixed(module: torch.nn.Module, inputs: object, output: dict[str, torch.Tensor]) -> None:
        output["sentence_embedding"] += output["sentence_embedding"].sum(dim=0)

    model[0].register_forward_hook(mixed)  # a title becomes its neighbours' sum
    with pytest.raises(UnevenTitlesError, match="mine embeds a title otherwise beside a longer"):
        embed_titles_alike(model, "mine")
