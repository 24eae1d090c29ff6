"""A title embeds alike alone and beside others, whatever pools it."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.tiny_clip import save_tiny_clip, save_tiny_siglip, save_tiny_text_model
from tests.tiny_encoders import (
    save_altclip,
    save_chinese_clip,
    save_two_models,
    save_vision_text_dual_encoder,
)
from thumbtune.clip.models import find_model, load_model
from thumbtune.clip.padding import UnevenTitlesError, UnreadTitlesError, embed_titles_alike

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


def without_limit(folder: Path) -> Path:
    """A model whose tokenizers know no limit, as many on the hub do not."""
    for file in folder.rglob("*.json"):
        text = re.sub(r'"model_max_length": \d+', f'"model_max_length": {10**30}', file.read_text())
        file.write_text(re.sub(r'"max_seq_length": \d+', '"max_seq_length": null', text))
    return folder


@pytest.mark.parametrize(
    "save",
    [
        save_tiny_clip,
        partial(save_chinese_clip, positions=4000),  # more than a title that is tried has
        save_altclip,  # its positions begin behind its padding
        save_vision_text_dual_encoder,
        save_two_models,
        save_tiny_siglip,
        save_tiny_text_model,
    ],
)
def test_titles_are_cut_to_what_a_model_can_read_though_its_tokenizer_knows_no_limit(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = load_model(find_model(str(without_limit(save(tmp_path / "model")))))
    assert far_apart(model) < 1e-5
    assert np.isfinite(model.encode(["x " * 5000])).all()


def test_the_model_that_reads_titles_is_padded_where_another_one_sees_pictures(
    tmp_path: Path,
) -> None:
    folder = save_two_models(tmp_path / "model", save_text=save_tiny_siglip)
    assert far_apart(load_model(find_model(str(folder)))) < 1e-5


@pytest.mark.parametrize("save", [save_tiny_clip, save_chinese_clip, save_tiny_text_model])
def test_a_model_without_its_tokenizer_is_refused(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "model")
    for file in [*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("merges*")]:
        file.unlink()
    with pytest.raises(UnreadTitlesError, match=r"^model: .* its tokenizer files are missing"):
        load_model(find_model(str(folder)))


def test_a_model_that_no_padding_mends_is_refused(tmp_path: Path) -> None:
    model = load_model(find_model(str(save_tiny_siglip(tmp_path / "siglip"))))

    def mixed(module: torch.nn.Module, inputs: object, output: dict[str, torch.Tensor]) -> None:
        output["sentence_embedding"] += output["sentence_embedding"].sum(dim=0)

    model[0].register_forward_hook(mixed)  # a title becomes its neighbours' sum
    with pytest.raises(UnevenTitlesError, match="mine embeds a title otherwise beside a longer"):
        embed_titles_alike(model, "mine")
