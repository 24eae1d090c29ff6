"""Finding the model to fine-tune: bundled, in a folder, or on a stand-in for the hub."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from tests.hub_server import READ_TOKEN, HubServer, run_python
from tests.tiny_clip import save_tiny_clip, save_tiny_text_model
from thumbtune.clip.models import (
    ModelNotFoundError,
    NotAClipError,
    find_model,
    folder_of,
    load_clip,
    load_model,
    not_needed,
)
from thumbtune.sample import MODEL
from thumbtune.store.model_reference import hash_of

pytestmark = pytest.mark.slow


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_tiny_clip(tmp_path / "clip")


def test_the_sample_is_the_bundled_clip() -> None:
    assert Path(find_model("sample").path) == MODEL
    assert load_clip(find_model("sample")).supports("image")


def test_a_folder_is_identified_by_its_content(clip: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(clip, tmp_path / "elsewhere" / "copy"))
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    (copy / "README.md").write_text("A model card does not change the model.")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "note").write_text("Nor does a hidden file.")

    assert find_model(str(copy)).fingerprint == find_model(str(clip)).fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_change_of_one_byte_makes_another_model(clip: Path, name: str) -> None:
    before = hash_of(clip)
    data = bytearray((clip / name).read_bytes())
    data[-1] ^= 1
    (clip / name).write_bytes(data)
    assert hash_of(clip) != before


def test_other_weights_make_another_model(clip: Path, tmp_path: Path) -> None:
    assert hash_of(save_tiny_clip(tmp_path / "other", seed=1)) != hash_of(clip)
    assert hash_of(save_tiny_clip(tmp_path / "same", seed=0)) == hash_of(clip)


def test_a_folder_without_a_model_is_told_by_the_parameters_name(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"^negatives\.text_model: the folder .* no model"):
        find_model(str(tmp_path), "negatives.text_model")


def test_a_resolved_folder_embeds_pictures_and_titles(clip: Path) -> None:
    model = load_clip(find_model(str(clip)))
    pictures = model.encode([Image.new("RGB", (480, 360), colour) for colour in ("red", "blue")])
    titles = model.encode(["A title", "Ein Titel 🎉"])
    assert pictures.shape == titles.shape == (2, 8)
    assert not np.allclose(pictures[0], pictures[1])
    assert not np.allclose(titles[0], titles[1])


def test_a_text_model_is_refused_as_clip_but_loads_for_titles(tmp_path: Path) -> None:
    text = find_model(str(save_tiny_text_model(tmp_path / "text")))
    assert load_model(text).encode(["one", "two"]).shape == (2, 8)
    with pytest.raises(NotAClipError, match=r"text but not image\. Choose a CLIP"):
        load_clip(text)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [save_tiny_clip, save_tiny_text_model])
def test_a_model_stored_in_half_precision_is_loaded_in_float32(
    tmp_path: Path, make: Callable[..., Path], dtype: torch.dtype
) -> None:
    stored = make(tmp_path / "half", dtype=dtype)
    halves = load_file(stored / "model.safetensors")
    assert {weight.dtype for weight in halves.values() if weight.is_floating_point()} == {dtype}
    model = load_model(find_model(str(stored)))
    upcast = SentenceTransformer(str(stored)).float()
    for (name, weight), (_, expected) in zip(
        model.named_parameters(), upcast.named_parameters(), strict=True
    ):
        assert weight.dtype == torch.float32, name
        assert torch.equal(weight, expected), name
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    told = (tmp_path / "saved" / "config.json").read_text()
    assert "float32" in told
    assert "float16" not in told


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["config.json", "pytorch_model.bin"], []),
        (["model.safetensors", "2_Dense/pytorch_model.bin"], []),
        (["0_CLIP/model.safetensors", "0_CLIP/pytorch_model.bin"], ["0_CLIP/pytorch_model.bin"]),
        (["onnx/model.onnx", "openvino/model.xml"], ["onnx/model.onnx", "openvino/model.xml"]),
        (["tf_model.h5", "flax_model.msgpack"], ["tf_model.h5", "flax_model.msgpack"]),
        (["model.safetensors", "open_clip_model.safetensors"], ["open_clip_model.safetensors"]),
        (["pytorch_model.bin", "open_clip_pytorch_model.bin"], ["open_clip_pytorch_model.bin"]),
        (["pytorch_model.bin", "open_clip_model.safetensors"], ["open_clip_model.safetensors"]),
    ],
)
def test_only_weights_that_are_read_are_downloaded(files: list[str], left_out: list[str]) -> None:
    assert not_needed(files) == left_out


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"adapter_config.json": "{}", "adapter_model.safetensors": ""}, "is an adapter (PEFT)"),
        ({"open_clip_config.json": "{}", "open_clip_model.safetensors": ""}, "open_clip's format"),
        ({"config.json": '{"auto_map": {}, "model_type": "own"}'}, "code of its own"),
    ],
)
def test_a_kind_of_model_that_cannot_be_loaded_is_told_with_what_to_take_instead(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    (tmp_path / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]'
    )
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(NotAClipError, match=re.escape(told)):
        load_model(find_model(str(tmp_path)))


RESOLVE = """
import json, os
from thumbtune.clip.models import folder_of, find_model
from thumbtune.store.model_reference import ModelReference
from thumbtune.tasks.resolve_model import resolve_model
def at_commit(name, parameter):
    name, _, commit = name.partition("@")
    known = ModelReference(name=name, path=f"/another/machine/{commit}", fingerprint=commit)
    return known.model_copy(update={"path": str(folder_of(known))})
answers = {}
for key, name, token in json.loads(os.environ["ASKED"]):
    os.environ["HF_TOKEN"] = token
    asked = resolve_model.with_options(retry_delay_seconds=0.05) if "task" in key else find_model
    asked = at_commit if "@" in name else asked
    try:
        answers[key] = asked(name, "model").model_dump()
    except Exception as error:
        answers[key] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


def ask(
    hub: HubServer, home: Path, *asked: tuple[str, str, str], **environment: str
) -> dict[str, Any]:
    """Resolve (key, name, token) in turn; key → what came of it."""
    settings = hub.environment(home, ASKED=json.dumps(asked), **environment)
    answers: dict[str, Any] = json.loads(run_python(RESOLVE, settings).stdout.splitlines()[-1])
    return answers


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = save_tiny_clip(tmp_path_factory.mktemp("clip"))
    for twin in ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx"):
        (folder / twin).parent.mkdir(exist_ok=True)
        (folder / twin).write_bytes(b"the same weights for others")
    with HubServer() as server:
        server.add("model", "owner/clip", folder)
        server.add("model", "owner/gated", folder, gated=True)
        server.add("model", "owner/private", folder, private=True)
        server.add("model", "owner/slow", folder)
        server.add("model", "owner/damaged", folder)
        moved = server.add("model", "owner/moved", folder)
        moved.commit({name: moved.files[name] for name in list(moved.files)[1:]}, "another")
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub: HubServer, home: Path) -> dict[str, Any]:
    hub.failures += [("/api/models/owner/slow", 503)] * 2 + [("/api/models/owner/down", 503)]
    return ask(
        hub,
        home,
        ("clip", "owner/clip", ""),
        ("again", "owner/clip", ""),
        ("unknown", "owner/none", ""),
        ("misspelt", "bad name!", ""),
        ("gated", "owner/gated", ""),
        ("private", "owner/private", ""),
        ("wrong token", "owner/private", "hf_wrong"),
        ("down", "owner/down", ""),
        ("task, failing twice", "owner/slow", ""),
        ("task, unknown", "owner/nowhere", ""),
        ("private with token", "owner/private", READ_TOKEN),
        ("at a commit", f"owner/moved@{hub.repositories['model', 'owner/moved'].commits[-2]}", ""),
        ("head", "owner/moved", ""),
    )


def known_and_unknown(hub: HubServer) -> list[tuple[str, str, str]]:
    """What was downloaded before, the commits of `owner/moved` among it, and what was not."""
    *_, before, head = hub.repositories["model", "owner/moved"].commits
    return [
        ("clip", "owner/clip", ""),
        ("unseen", "owner/none", ""),
        ("head", f"owner/moved@{head}", ""),
        ("at a commit", f"owner/moved@{before}", ""),
        ("at another commit", f"owner/moved@{'0' * 40}", ""),
    ]


@pytest.fixture(scope="module")
def offline(hub: HubServer, home: Path, online: dict[str, Any]) -> dict[str, Any]:
    return ask(hub, home, *known_and_unknown(hub), HF_HUB_OFFLINE="1")


@pytest.fixture(scope="module")
def without_network(hub: HubServer, home: Path, online: dict[str, Any]) -> dict[str, Any]:
    return ask(hub, home, *known_and_unknown(hub), HF_ENDPOINT="http://127.0.0.1:9")


def test_a_hub_model_is_identified_by_its_commit(hub: HubServer, online: dict[str, Any]) -> None:
    assert online["clip"]["fingerprint"] == hub.repositories["model", "owner/clip"].head


def test_a_hub_model_that_another_machine_resolved_is_had_here_at_its_commit(
    hub: HubServer, online: dict[str, Any]
) -> None:
    *_, before, head = hub.repositories["model", "owner/moved"].commits
    assert Path(online["at a commit"]["path"]).name == before != head
    assert load_clip(find_model(online["at a commit"]["path"])).supports("image")


@pytest.mark.parametrize("when", ["offline", "without_network"])
def test_the_commit_that_is_meant_is_had_or_told_when_the_hub_cannot_be_asked(
    hub: HubServer, request: pytest.FixtureRequest, when: str
) -> None:
    answers: dict[str, Any] = request.getfixturevalue(when)
    *_, before, head = hub.repositories["model", "owner/moved"].commits
    assert Path(answers["at a commit"]["path"]).name == before
    assert Path(answers["head"]["path"]).name == head
    assert f"model: owner/moved at commit {'0' * 40} is not in" in answers["at another commit"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_hub_that_was_damaged_in_the_cache_is_downloaded_again(
    hub: HubServer, tmp_path: Path, name: str
) -> None:
    commit = hub.repositories["model", "owner/damaged"].head
    asked = ("at a commit", f"owner/damaged@{commit}", "")
    file = Path(ask(hub, tmp_path, asked)["at a commit"]["path"]) / name
    whole = file.read_bytes()
    file.resolve().write_bytes(whole[:1000])
    told = ask(hub, tmp_path, asked, HF_HUB_OFFLINE="1")["at a commit"]
    assert f"owner/damaged at commit {commit} is not in the local cache" in told
    ask(hub, tmp_path, asked)
    assert file.read_bytes() == whole


def test_a_model_that_another_machine_resolved_is_found_here_by_its_name(clip: Path) -> None:
    elsewhere = {"path": "/another/machine/clip"}
    assert folder_of(find_model("sample").model_copy(update=elsewhere)) == MODEL
    known = find_model(str(clip)).model_copy(update=elsewhere)
    assert folder_of(known) == clip
    other = known.model_copy(update={"fingerprint": "of other weights"})
    with pytest.raises(ModelNotFoundError, match="has other weights than where it was used before"):
        folder_of(other)


def test_the_safetensors_come_and_their_twins_do_not(online: dict[str, Any]) -> None:
    files = {file.name for file in Path(online["clip"]["path"]).rglob("*")}
    assert {"model.safetensors", "tokenizer.json", "modules.json"} <= files
    assert not files & {"pytorch_model.bin", "tf_model.h5", "model.onnx"}


@pytest.mark.compatibility
def test_a_downloaded_model_loads(online: dict[str, Any]) -> None:
    assert load_clip(find_model(online["clip"]["path"])).supports("image")


def test_a_model_that_is_there_is_not_downloaded_again(
    hub: HubServer, online: dict[str, Any]
) -> None:
    assert online["again"] == online["clip"]
    weights = [r for r in hub.requests if r.startswith("GET /owner/clip/") and ".safeten" in r]
    assert len(weights) == 1


def test_a_downloaded_model_is_found_offline(
    online: dict[str, Any], offline: dict[str, Any]
) -> None:
    assert offline["clip"] == online["clip"]


def test_a_downloaded_model_is_found_without_network(
    online: dict[str, Any], without_network: dict[str, Any]
) -> None:
    assert without_network["clip"] == online["clip"]


def test_an_unknown_model_is_told(online: dict[str, Any]) -> None:
    for name in ("unknown", "misspelt"):
        assert online[name].startswith("ModelNotFoundError: model: ")
        assert "neither a folder here nor a model on the Hugging Face hub" in online[name]


def test_a_gated_model_asks_for_a_token(online: dict[str, Any]) -> None:
    assert online["gated"].startswith("ModelNotFoundError: model: owner/gated is gated")
    assert "HF_TOKEN" in online["gated"]


def test_a_private_model_needs_a_token(online: dict[str, Any]) -> None:
    assert online["private"].startswith("ModelNotFoundError: ")
    assert "for a private model set HF_TOKEN" in online["private"]
    assert online["private with token"]["name"] == "owner/private"


def test_a_wrong_token_is_told_but_not_shown(online: dict[str, Any]) -> None:
    assert online["wrong token"].startswith("ModelNotFoundError: ")
    assert "refused owner/private (HTTP 401). Set HF_TOKEN" in online["wrong token"]
    assert "hf_wrong" not in online["wrong token"]


def test_a_failing_hub_is_worth_another_try(online: dict[str, Any]) -> None:
    assert online["down"].startswith("HubUnreachableError: model: owner/down ")
    assert "HTTP 503" in online["down"]
    assert online["task, failing twice"]["name"] == "owner/slow"


def test_an_unknown_model_is_asked_for_once(hub: HubServer, online: dict[str, Any]) -> None:
    assert online["task, unknown"].startswith("ModelNotFoundError: ")
    assert hub.requests.count("GET /api/models/owner/nowhere") == 1


def test_no_network_is_told(without_network: dict[str, Any]) -> None:
    assert without_network["unseen"].startswith("HubUnreachableError: ")
    assert "Check the network" in without_network["unseen"]


def test_offline_mode_without_the_model_is_told(offline: dict[str, Any]) -> None:
    assert offline["unseen"].startswith("ModelNotFoundError: ")
    assert "HF_HUB_OFFLINE is set" in offline["unseen"]
