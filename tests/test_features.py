"""Training on stored features of the frozen towers is the article's training, only faster."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from sample import MODEL
from tasks.evaluation import RecallEvaluator
from tasks.features import FeatureStore, head_of
from tasks.freezing import freeze
from tasks.parameters import EvaluationParameters, TrainingParameters
from tasks.thumbnails import Example
from tasks.towers import plan_of
from tasks.training import fine_tune
from tasks.workspace import Workspace

MEASURES = EvaluationParameters()
LOGGER = logging.getLogger("features")


@pytest.fixture
def examples(workspace: Workspace) -> list[Example]:
    """Forty pictures of plain colours with titles of different lengths."""
    (workspace.root / "thumbnails").mkdir()
    rows = []
    for n in range(40):
        image = f"thumbnails/{n:064}.png"
        color = (n * 37 % 256, n * 91 % 256, n * 13 % 256)
        Image.new("RGB", (64, 36), color).save(workspace.root / image)
        title, other = (f"{'a long ' * (k % 4)}title {k}" for k in (n, (n + 7) % 40))
        split = "train" if n < 30 else "valid"
        pair = {"id": str(n), "title": title, "title_neg": other, "split": split}
        rows.append(Example.model_validate({**pair, "thumbnails": {}, "image": image}))
    return rows


def train(
    workspace: Workspace,
    examples: Sequence[Example],
    fragments: Sequence[str],
    on_features: bool,
    epochs: int = 3,
) -> tuple[SentenceTransformer, dict[str, float]]:
    """The trained CLIP, and the metrics of what was trained."""
    model = SentenceTransformer(str(MODEL))
    freeze(model, fragments)
    reader, _ = head_of(workspace, model, examples) if on_features else (model, 0)
    settings = TrainingParameters(epochs=epochs, batch_size=8)
    train, valid = examples[:30], examples[30:]
    fine_tune(reader, workspace, train, valid, settings, MEASURES, 42, LOGGER)
    return model, RecallEvaluator(workspace, valid, "valid", MEASURES, 42)(reader)


@pytest.mark.parametrize(
    "fragments",
    [["projection"], ["projection", "layernorm", "layer_norm"], ["projection", "layers.1."]],
)
def test_features_give_the_weights_and_metrics_of_the_full_forward(
    workspace: Workspace, examples: list[Example], fragments: list[str]
) -> None:
    whole, expected = train(workspace, examples, fragments, on_features=False)
    cached, metrics = train(workspace, examples, fragments, on_features=True)
    untouched = dict(SentenceTransformer(str(MODEL)).named_parameters())
    learned = dict(cached.named_parameters())
    for name, weight in whole.named_parameters():
        # A key's bias has no gradient but rounding noise (softmax ignores it), which AdamW scales.
        if not name.endswith("k_proj.bias"):
            assert torch.norm(learned[name] - weight) <= 1e-4 * torch.norm(weight), name
        assert torch.equal(weight, untouched[name]) != weight.requires_grad
    assert metrics == pytest.approx(expected)


def test_hidden_states_are_stored_when_the_last_layer_trains_and_nothing_when_all_do() -> None:
    model = SentenceTransformer(str(MODEL))
    depths = {"image": 4, "text": 3}  # all layers of the sample's CLIP
    freeze(model, ["projection"])
    assert plan_of(model).depths == depths
    assert "outputs, run once" in plan_of(model).why
    freeze(model, ["projection", "vision_model.encoder.layers.3."])
    assert plan_of(model).depths == {**depths, "image": 3}
    assert "hidden states" in plan_of(model).why
    freeze(model, ["text_model"])
    assert plan_of(model).depths is None
    assert "the text tower trains from its first layer" in plan_of(model).why


def encode(workspace: Workspace, examples: list[Example]) -> tuple[int, int]:
    """How many pictures and titles had to be encoded."""
    model = SentenceTransformer(str(MODEL))
    freeze(model, ["projection"])
    encoded = head_of(workspace, model, examples)[1].encoded
    return encoded["image"], encoded["text"]


def files(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / "features").glob("*/*.safetensors"))


def test_only_what_is_new_is_encoded(workspace: Workspace, examples: list[Example]) -> None:
    rows = [row.model_copy(update={"title_neg": None}) for row in examples]
    assert encode(workspace, rows[:35]) == (35, 35)
    assert encode(workspace, rows) == (5, 5)
    assert encode(workspace, rows) == (0, 0)


def test_the_fine_tuned_model_shares_the_features(
    workspace: Workspace, examples: list[Example], tmp_path: Path
) -> None:
    model, _ = train(workspace, examples, ["projection"], on_features=True, epochs=1)
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    saved = SentenceTransformer(str(tmp_path / "model"))
    freeze(saved, ["projection"])
    reader, encoded = head_of(workspace, saved, examples)
    assert encoded.encoded == {"image": 0, "text": 0}
    evaluator = RecallEvaluator(workspace, examples[30:], "valid", MEASURES, 42)
    assert evaluator(reader) == pytest.approx(evaluator(saved))


@pytest.mark.parametrize("place", [20, -20])  # in the header, in the numbers
def test_a_damaged_feature_file_is_encoded_again(
    workspace: Workspace, examples: list[Example], place: int
) -> None:
    encode(workspace, examples)
    file = files(workspace)[0]
    broken = bytearray(file.read_bytes())
    broken[place] ^= 0xFF
    file.write_bytes(broken)
    assert sorted(encode(workspace, examples)) == [0, 40]
    assert encode(workspace, examples) == (0, 0)


def test_a_file_cut_short_or_half_written_is_no_feature(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.write({"a": torch.ones(1, 4), "b": torch.zeros(3, 4)})
    assert store.read(["a", "b", "c"]).keys() == {"a", "b"}
    assert store.read(["b"])["b"].shape == (3, 4)
    [file] = tmp_path.glob("*.safetensors")
    (tmp_path / f".{file.name}.temporary").write_bytes(file.read_bytes()[:50])
    assert store.read(["a"])["a"].tolist() == [[1, 1, 1, 1]]
    file.write_bytes(file.read_bytes()[:-8])
    assert store.read(["a"]) == {}
