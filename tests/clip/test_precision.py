"""Which precision the towers run in, and what int8 makes of them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from tests.small_channel import make_examples, quick_run
from tests.tiny_encoders import KINDS_OF_MODELS
from thumbtune.clip import precision, quantised
from thumbtune.clip.features import FeatureStore, head_of, image_key, inputs_of, trunk_in
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import find_model, load_clip
from thumbtune.clip.precision import ChosenPrecision, precision_for
from thumbtune.clip.towers import Layers
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import Example, load_cropped, load_image
from thumbtune.flows.train_flow import train
from thumbtune.parameters import AUTO
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace


@pytest.fixture
def examples(workspace: Workspace) -> list[Example]:
    return make_examples(workspace, 40)


def sample() -> SentenceTransformer:
    model = load_clip(find_model("sample"))
    set_trainable(model, AUTO)
    return model


def test_bfloat16_is_used_only_where_the_hardware_gains_by_it(
    workspace: Workspace, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SentenceTransformer(str(MODEL), device="cpu")
    freeze(model, ["projection"])
    trial = [row.model_copy(update={"split": "valid"}) for row in examples[:2]]
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    assert precision_for(workspace, model, trial, "float32").told == ""
    assert precision_for(workspace, model, trial, "bfloat16").precision == "bfloat16"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True})
    chosen = precision_for(workspace, model, trial, "bfloat16")
    assert chosen.precision == "float32"
    assert chosen.told == "float32 is used, since this hardware is no faster with bfloat16"


def chosen_where_bfloat16_gives(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], None]
) -> ChosenPrecision:
    """The precision that is chosen by eleven videos, on hardware that computes something else.

    Args:
        change: changes the pictures' features in place, shape (videos, width).
    """
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    trial = make_examples(workspace, 11)
    model = SentenceTransformer(str(MODEL), device="cpu")
    freeze(model, ["projection"])
    head_of(workspace, model, trial, "bfloat16")
    trunk = Layers(model, "image", 4, "bfloat16")
    store = FeatureStore(workspace, f"features/{trunk.fingerprint}")
    features = store.read([image_key(row) for row in trial])
    for file in (workspace.root / store.path).iterdir():
        file.unlink()
    matrix = torch.cat(list(features.values()))
    change(matrix)
    store.write(dict(zip(features, matrix.split(1), strict=True)))
    return precision_for(workspace, model, trial, "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "chosen"), [(0.1, "float32"), (0.01, "bfloat16")])
@pytest.mark.parametrize("seed", range(5))
def test_bfloat16_is_refused_where_it_adds_noise_that_matters(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, noise: float, chosen: str, seed: int
) -> None:
    def add_noise(features: torch.Tensor) -> None:
        torch.manual_seed(seed)
        features += noise * features.std(dim=0) * torch.randn_like(features)

    found = chosen_where_bfloat16_gives(workspace, monkeypatch, add_noise)
    assert found.precision == chosen
    assert re.search(r"bfloat16 moves embeddings by [\d.]+% .* with 11 videos", found.told)


def test_bfloat16_is_refused_where_one_video_overflows(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(features: torch.Tensor) -> None:
        features[3, 0] = float("inf")

    assert chosen_where_bfloat16_gives(workspace, monkeypatch, overflow).precision == "float32"


@pytest.mark.compatibility
def test_int8_is_nearly_float32_and_is_quantised_once(
    workspace: Workspace, examples: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    model, keys = sample(), [image_key(row) for row in examples]
    exact = head_of(workspace, model, examples)[0].encode(keys, normalize_embeddings=True)
    head, encoded = head_of(workspace, model, examples, "int8")
    fast = head.encode(keys, normalize_embeddings=True)
    assert capsys.readouterr().out == "", "no bars of NNCF's"
    assert not np.array_equal(exact, fast)
    assert (exact * fast).sum(axis=1).min() > 0.98
    assert encoded.encoded == {"image": 40, "text": 0}, "titles are those of float32"
    [kept] = (workspace.root / "quantised").iterdir()
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert head_of(workspace, sample(), examples, "int8")[1].encoded == {"image": 0, "text": 0}
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS_OF_MODELS))
def test_every_kind_of_model_can_be_quantised(
    kind: str, tmp_path: Path, workspace: Workspace, examples: list[Example]
) -> None:
    """Against float32 by OpenVINO there is rounding alone; a tiny tower's int8 is coarse."""
    model = load_clip(find_model(str(KINDS_OF_MODELS[kind](tmp_path / "model"))))
    set_trainable(model, AUTO)
    pictures = list(inputs_of(workspace, examples)["image"].values())
    fast = trunk_in(workspace, model, "image", "int8", pictures)
    exact = trunk_in(workspace, model, "image", "float32", [])
    assert isinstance(fast, quantised.Quantised)
    assert exact
    ready = exact.prepare([picture(None) for picture in pictures])
    a, b = (torch.cat(trunk.run(dict(ready))) for trunk in (exact, fast))
    assert a.shape == b.shape
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.7


@pytest.fixture(scope="module")
def with_a_tower(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that keeps the bundled CLIP's picture tower in int8."""
    workspace = Workspace.open(tmp_path_factory.mktemp("quantised") / "workspace")
    head_of(workspace, sample(), make_examples(workspace, 40), "int8")
    return workspace


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-5],
    "changed": lambda content: bytes([content[0] ^ 1]) + content[1:],
}


@pytest.mark.parametrize("name", quantised.FILES)
@pytest.mark.parametrize("damage", ["gone", *DAMAGES])
def test_a_damaged_quantised_tower_is_noticed(
    with_a_tower: Workspace, tmp_path: Path, name: str, damage: str
) -> None:
    exact = trunk_in(with_a_tower, sample(), "image", "float32", [])
    assert exact
    shutil.copytree(with_a_tower.root / "quantised", tmp_path / "quantised")
    workspace = Workspace.open(tmp_path)
    assert quantised.quantised(workspace, exact, []) is not None
    [kept] = (tmp_path / "quantised").iterdir()
    content = (kept / name).read_bytes()
    (kept / name).unlink()
    if damage in DAMAGES:
        (kept / name).write_bytes(DAMAGES[damage](content))
    assert quantised.quantised(workspace, exact, []) is None


def test_a_damaged_quantised_tower_is_made_again(with_a_tower: Workspace) -> None:
    [kept] = (with_a_tower.root / "quantised").iterdir()
    (kept / "model.bin").write_bytes(b"")
    examples = make_examples(with_a_tower, 40)
    head, _ = head_of(with_a_tower, sample(), examples, "int8")
    assert np.isfinite(head.encode([image_key(row) for row in examples])).all()
    assert {file.name for file in kept.iterdir()} == set(quantised.FILES)
    assert json.loads((kept / "whole.json").read_bytes())


def test_int8_wants_its_extra_and_a_tower_that_is_frozen_as_a_whole(
    workspace: Workspace, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sample()
    freeze(model, ["projection", "vision_model.encoder.layers.3."])
    assert "frozen as a whole" in precision_for(workspace, model, examples, "int8").told
    monkeypatch.setattr("thumbtune.clip.quantised.find_spec", lambda name: None)
    told = precision_for(workspace, sample(), examples, "int8").told
    assert told == (
        "float32 is used, since int8 needs OpenVINO and NNCF: run `pip install 'thumbtune[fast]'`"
    )


def test_auto_is_float32_for_few_pictures_and_loads_nothing(
    workspace: Workspace, examples: list[Example]
) -> None:
    assert precision_for(workspace, sample(), examples, "auto") == ChosenPrecision(
        precision="float32"
    )
    assert not (workspace.root / "quantised").exists()
    assert not (workspace.root / "features").exists()


@pytest.mark.slow
def test_auto_takes_what_is_fastest_tries_it_and_stays_with_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(workspace, 80)
    monkeypatch.setattr(precision, "PAYS", 60)
    monkeypatch.setattr(precision, "TRIAL_BOUNDS", (20, 30))
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_vnni": True})
    seconds = {"float32": 4.0, "int8": 1.0}
    monkeypatch.setattr(precision, "_seconds", lambda *args: seconds[args[-1]])
    first = precision_for(workspace, sample(), examples, "auto")
    assert first.precision == "int8"
    assert "in a trial with 20 videos; Recall@1, 5 and 10 there: " in first.told
    head_of(workspace, sample(), examples, "int8")
    seconds["float32"] = 0.1
    again = precision_for(workspace, sample(), examples, "auto")
    assert again == ChosenPrecision(precision="int8"), "its features are stored"


def test_auto_stays_with_float32_where_nothing_is_faster(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(workspace, 80)
    monkeypatch.setattr(precision, "PAYS", 60)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True})
    assert precision_for(workspace, sample(), examples, "auto").precision == "float32"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_vnni": True})
    monkeypatch.setattr(precision, "_seconds", lambda *args: 1.0 + (args[-1] == "int8"))
    assert precision_for(workspace, sample(), examples, "auto").precision == "float32"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_a_run_in_int8_tells_of_the_trial_in_its_report(tmp_path: Path) -> None:
    options: dict[str, Any] = quick_run(tmp_path)
    run = train(**options | {"model": "sample", "features": {"precision": "int8"}})
    report = Path(run.report).read_text()
    assert "int8 moves embeddings by" in report
    assert "(int8)" in report or "float32 is used, since int8" in report


@pytest.mark.compatibility
def test_openvino_is_run_without_its_telemetry() -> None:
    """It would send an event to Google Analytics as soon as it is imported."""
    script = (
        "import sys\n"
        "from thumbtune.clip.quantised import _openvino\n"
        "_openvino()\n"
        "import nncf, openvino.tools.ovc\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
        "print(type(telemetry).__name__, type(openvino.tools.ovc.telemetry).__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "NNCFTelemetry" not in done.stdout
    assert "telemetry_stub" in done.stdout


def jpeg(folder: Path, size: tuple[int, int]) -> Path:
    """A smooth picture, as photographs are."""
    colours = np.random.default_rng(0).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    file = folder / "picture.jpg"
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(file, quality=90)
    return file


@pytest.mark.parametrize(
    ("size", "crop", "least", "reduced"),
    [
        ((1280, 720), None, 336, (640, 360)),
        ((1280, 720), None, 90, (160, 90)),
        ((1280, 720), None, 721, (1280, 720)),
        ((640, 480), (0, 60, 640, 420), 120, (320, 180)),
        ((480, 360), (0, 45, 480, 315), 60, (480, 270)),  # 22.5 would leave half a dark line
    ],
)
def test_a_jpeg_is_decoded_at_a_fraction_of_its_size_that_is_large_enough(
    tmp_path: Path, size: Any, crop: Any, least: int, reduced: tuple[int, int]
) -> None:
    file = jpeg(tmp_path, size)
    whole, small = load_cropped(file, crop), load_cropped(file, crop, least)
    assert small.size == reduced
    a, b = (np.asarray(each.resize((64, 36)), np.int16) for each in (whole, small))
    assert np.abs(a - b).mean() < 1.5


def test_float32_sees_pictures_whole_and_the_faster_ones_reduced(
    workspace: Workspace, examples: list[Example]
) -> None:
    exact = trunk_in(workspace, sample(), "image", "float32", [])
    fast = trunk_in(workspace, sample(), "image", "bfloat16", [])
    assert exact
    assert fast
    assert exact.side is None
    side = exact.module.processor.image_processor.size["shortest_edge"]
    assert fast.side == 3 * side // 2
    assert min(load_image(workspace, examples[0], fast.side).size) >= fast.side
