"""A model that cannot be read is told in one sentence, with what to do."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig

from tests.tiny_clip import save_tiny_clip
from tests.tiny_encoders import save_vision_text_dual_encoder
from thumbtune.clip.models import ModelNotFoundError, NotAClipError, find_model, load_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_tiny_clip(tmp_path / "clip")


def told(folder: Path) -> str:
    """What is said of a model that cannot be loaded: one line, which names it."""
    with pytest.raises(NotAClipError) as error:
        load_model(find_model(str(folder)))
    said = str(error.value)
    assert said.startswith(f"model: {folder} ")
    assert "\n" not in said
    assert "such as sentence-transformers/clip-ViT-L-14" in said
    return said


def halved(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [halved, emptied])
@pytest.mark.parametrize(
    "name", [WEIGHTS, "config.json", "tokenizer.json", "modules.json", "processor_config.json"]
)
def test_a_damaged_file_is_named(name: str, damage: Callable[[Path], None], clip: Path) -> None:
    damage(clip / name)
    assert f"cannot be loaded: {name} is damaged. Download or save it again" in told(clip)


def test_a_pointer_in_place_of_the_weights_is_told_apart(clip: Path) -> None:
    (clip / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")
    assert f"{WEIGHTS} is a pointer of Git LFS (`git lfs pull` brings" in told(clip)


def test_damaged_weights_of_pytorch_are_named(clip: Path) -> None:
    (clip / "pytorch_model.bin").write_bytes(b"PK\x03\x04 and no more")
    (clip / WEIGHTS).unlink()
    assert "cannot be loaded: pytorch_model.bin is damaged" in told(clip)


@pytest.mark.parametrize("name", [WEIGHTS, "processor_config.json"])
def test_a_missing_file_is_told(name: str, clip: Path) -> None:
    (clip / name).unlink()
    assert "cannot be loaded: " in told(clip)


def test_weights_of_another_shape_are_told(clip: Path) -> None:
    weights = load_file(clip / WEIGHTS)
    weights["visual_projection.weight"] = weights["visual_projection.weight"][:, :6].contiguous()
    save_file(weights, clip / WEIGHTS, {"format": "pt"})
    assert "its weights have other shapes than its config.json tells" in told(clip)


def test_a_tokenizer_that_cannot_pad_is_told_though_the_model_loads(clip: Path) -> None:
    for file in (clip / "tokenizer_config.json", clip / "special_tokens_map.json"):
        if file.exists():
            settings = json.loads(file.read_text())
            file.write_text(json.dumps(settings | {"pad_token": None}))
    assert "the tokenizer does not have a padding token" in told(clip)


def test_a_tower_that_gives_no_vector_is_told_though_the_model_loads(tmp_path: Path) -> None:
    tiny = {"dim": 8, "hidden_dim": 16, "n_heads": 2, "n_layers": 1, "max_position_embeddings": 80}
    folder = save_vision_text_dual_encoder(tmp_path / "model", DistilBertConfig(**tiny))
    assert "has no attribute 'pooler_output'" in told(folder)


def test_a_module_of_its_own_is_code_that_is_never_run(clip: Path) -> None:
    own = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]
    (clip / "modules.json").write_text(json.dumps(own))
    (clip / "custom_st.py").write_text("raise SystemExit('run')")
    assert "comes with code of its own, which thumbtune never runs" in told(clip)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adapter_config.json", "is an adapter (PEFT)"),
        ("open_clip_config.json", "open_clip's format"),
    ],
)
def test_a_folder_in_another_format_alone_is_told_by_its_kind(
    name: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ModelNotFoundError, match=f"^model: .* {re.escape(kind)}"):
        find_model(str(tmp_path))


def test_timms_configuration_is_none_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "vit_base", "num_classes": 0}')
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(NotAClipError, match="open_clip's format"):
        load_model(find_model(str(tmp_path)))


def test_a_full_memory_is_no_fault_of_the_model(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B")

    monkeypatch.setattr("transformers.CLIPModel.from_pretrained", full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        load_model(find_model(str(clip)))
