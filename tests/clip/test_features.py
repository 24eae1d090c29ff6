"""Training on stored features of the frozen towers is the article's training, only faster."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from benchmarks.shapes import save_clip
from tests.tiny_clip import save_tiny_clip
from thumbtune.clip.features import (
    FeatureStore,
    KeyIndex,
    add_up,
    encode_partition,
    head_of,
    image_key,
    partitions_of,
)
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import find_model
from thumbtune.clip.towers import plan_of
from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import RecallEvaluator
from thumbtune.learning.training import fine_tune
from thumbtune.parameters import EvaluationParameters, TrainingParameters
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace

MEASURES = EvaluationParameters()


@pytest.fixture
def examples(workspace: Workspace) -> list[Example]:
    """Forty pictures of plain colours with titles of different lengths."""
    (workspace.root / "thumbnails").mkdir()
    rows = []
    for n in range(40):
        image = f"thumbnails/{n}.png"
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
    clip: Path = MODEL,
) -> tuple[SentenceTransformer, dict[str, float]]:
    """The trained CLIP, and the metrics of what was trained."""
    model = SentenceTransformer(str(clip))
    freeze(model, fragments)
    reader, _ = head_of(workspace, model, examples) if on_features else (model, 0)
    settings = TrainingParameters(epochs=epochs, batch_size=8)
    train, valid = ([row for row in examples if row.split == split] for split in ("train", "valid"))
    fine_tune(reader, workspace, train, valid, settings, MEASURES, 42)
    return model, RecallEvaluator(workspace, valid, "valid", MEASURES)(reader)


def assert_equal_training(
    workspace: Workspace,
    examples: Sequence[Example],
    fragments: Sequence[str],
    epochs: int = 3,
    clip: Path = MODEL,
) -> None:
    """The full forward and the features give the same weights and metrics."""
    whole, expected = train(workspace, examples, fragments, False, epochs, clip)
    cached, metrics = train(workspace, examples, fragments, True, epochs, clip)
    untouched = dict(SentenceTransformer(str(clip)).named_parameters())
    learned = dict(cached.named_parameters())
    for name, weight in whole.named_parameters():
        # A key's bias has no gradient but rounding noise (softmax ignores it), which AdamW scales.
        if not name.endswith("k_proj.bias"):
            assert torch.norm(learned[name] - weight) <= 1e-4 * torch.norm(weight), name
        assert torch.equal(weight, untouched[name]) != weight.requires_grad
    assert metrics == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fragments",
    [["projection"], ["projection", "layernorm", "layer_norm"], ["projection", "layers.1."]],
)
def test_features_give_the_weights_and_metrics_of_the_full_forward(
    workspace: Workspace, examples: list[Example], fragments: list[str]
) -> None:
    assert_equal_training(workspace, examples, fragments)


@pytest.mark.slow
def test_features_give_the_weights_and_metrics_of_the_full_forward_of_a_vit_b_32(
    workspace: Workspace, examples: list[Example], tmp_path: Path
) -> None:
    clip = save_clip(tmp_path / "clip", "ViT-B/32")
    assert_equal_training(workspace, examples[18:34], ["projection"], epochs=2, clip=clip)


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vision_model", "text_model"])
def test_one_tower_trains_whole_while_the_other_is_run_once(
    workspace: Workspace, examples: list[Example], tower: str
) -> None:
    # Few steps: AdamW follows a gradient's sign, so where it is all but zero, noise adds up.
    assert_equal_training(workspace, examples[20:36], [tower], epochs=1)


def test_the_plan_is_to_store_what_enters_the_first_trainable_layer() -> None:
    model = SentenceTransformer(str(MODEL))
    freeze(model, ["projection"])
    plan = plan_of(model)
    assert plan.depths == {"image": 4, "text": 3}  # all layers of the sample's CLIP
    assert plan.why == (
        "stored features: the frozen image tower ran once; the frozen text tower ran once"
    )
    freeze(model, ["projection", "vision_model.encoder.layers.3."])
    plan = plan_of(model)
    assert plan.depths == {"image": 3, "text": 3}
    assert "3 of 4 image layers ran once" in plan.why
    freeze(model, ["text_model"])
    plan = plan_of(model)
    assert plan.depths == {"image": 4, "text": None}
    assert "the text tower trains whole" in plan.why
    freeze(model, ["embeddings"])
    assert plan_of(model).depths is None
    assert "both towers train from their first layer" in plan_of(model).why


def test_features_of_another_precision_are_near_and_stored_apart(
    workspace: Workspace, examples: list[Example]
) -> None:
    model = SentenceTransformer(str(MODEL), device="cpu")
    freeze(model, ["projection"])
    keys = [image_key(row) for row in examples]
    exact, fast = (
        head_of(workspace, model, examples, precision)[0].encode(keys, convert_to_tensor=True)
        for precision in ("float32", "bfloat16")
    )
    assert not torch.equal(exact, fast)
    assert torch.norm(exact - fast) < 0.02 * torch.norm(exact)
    assert len(list((workspace.root / "features").iterdir())) == 4


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


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 13])
def test_partitions_encode_each_picture_and_title_once(
    workspace: Workspace, examples: list[Example], size: int
) -> None:
    rows = [*examples, *examples[:5]]  # a picture and a title that come again
    clip = find_model("sample")
    table = workspace.write_table("examples", rows)
    partitions = partitions_of(table, size)
    assert [row for start, stop in partitions for row in range(start, stop)] == list(range(45))
    parts = [
        encode_partition(workspace, clip, table, ["projection"], "float32", start, stop)
        for start, stop in partitions
    ]
    assert len(parts) == (1 if size == 1000 else 4)
    titles = {title for row in rows for title in (row.title, row.title_neg)}
    assert add_up(parts).encoded == {"image": 40, "text": len(titles)}
    assert add_up(parts).reused == {"image": 0, "text": 0}
    assert encode(workspace, rows) == (0, 0)


def test_a_model_that_was_used_finds_its_features_again(
    workspace: Workspace, examples: list[Example]
) -> None:
    model = SentenceTransformer(str(MODEL))
    freeze(model, ["projection"])
    head_of(workspace, model, examples)
    model.encode(["a title, which sets the tokenizer's padding"])
    assert head_of(workspace, model, examples)[1].encoded == {"image": 0, "text": 0}


def test_the_fine_tuned_model_shares_the_features(
    workspace: Workspace, examples: list[Example], tmp_path: Path
) -> None:
    model, _ = train(workspace, examples, ["projection"], on_features=True, epochs=1)
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    saved = SentenceTransformer(str(tmp_path / "model"))
    freeze(saved, ["projection"])
    reader, encoded = head_of(workspace, saved, examples)
    assert encoded.encoded == {"image": 0, "text": 0}
    evaluator = RecallEvaluator(workspace, examples[30:], "valid", MEASURES)
    assert evaluator(reader) == pytest.approx(evaluator(saved))


@pytest.mark.slow
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


def channel_features(name: str) -> dict[str, torch.Tensor]:
    return {f"{name} {n}": torch.full((1, 4), float(n)) for n in range(8)}


def test_a_read_opens_only_the_files_that_have_what_it_asks_for(workspace: Workspace) -> None:
    store = FeatureStore(workspace, "features/trunk")
    for name in "abcdef":
        store.write(channel_features(name))
    assert store.read(["nothing"]) == {}
    own = set(KeyIndex.load(store.index_file).files_with(channel_features("c")))
    assert len(own) == 1
    for file in files(workspace):  # one that is opened and found damaged is removed
        if file.name not in own:
            file.write_bytes(b"damaged")
    for _ in range(2):
        assert (
            store.read([*channel_features("c"), "nothing"]).keys() == channel_features("c").keys()
        )
    assert len(files(workspace)) == 6
    assert store.read(list(channel_features("d"))) == {}
    assert len(files(workspace)) == 5


@pytest.mark.parametrize("lost", ["*.keys", ".index.npz"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"damaged")])
def test_features_are_found_without_what_tells_where_they_are(
    workspace: Workspace, lost: str, spoil: Callable[[Path], Any]
) -> None:
    """As in a store that is older than it, or of a run that was killed."""
    store = FeatureStore(workspace, "features/trunk")
    store.write(channel_features("a"))
    store.write(channel_features("b"))
    if lost == ".index.npz":
        store.read(["a 1"])
    for file in (workspace.root / "features").rglob(lost):
        spoil(file)
    for name in "ab":
        assert store.read(list(channel_features(name))).keys() == channel_features(name).keys()


def test_a_file_cut_short_or_half_written_is_no_feature(workspace: Workspace) -> None:
    store = FeatureStore(workspace, "features")
    store.write({"a": torch.ones(1, 4), "b": torch.zeros(3, 4)})
    assert store.read(["a", "b", "c"]).keys() == {"a", "b"}
    assert store.read(["b"])["b"].shape == (3, 4)
    [file] = (workspace.root / "features").glob("*.safetensors")
    (file.parent / f".{file.name}.temporary").write_bytes(file.read_bytes()[:50])
    assert store.read(["a"])["a"].tolist() == [[1, 1, 1, 1]]
    file.write_bytes(file.read_bytes()[:-8])
    assert store.read(["a"]) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [
        ("vision_config", "hidden_act", "gelu"),
        ("vision_config", "layer_norm_eps", 1e-3),
        ("text_config", "num_attention_heads", 1),
        ("text_config", "eos_token_id", 2),
    ],
)
def test_what_a_mended_configuration_computes_is_encoded_again(
    workspace: Workspace,
    examples: list[Example],
    tmp_path: Path,
    tower: str,
    field: str,
    value: Any,
) -> None:
    folder = save_tiny_clip(tmp_path / "clip")

    def encoded() -> dict[str, int]:
        model = SentenceTransformer(str(folder), device="cpu")
        freeze(model, ["projection"])
        return dict(head_of(workspace, model, examples)[1].encoded)

    first = encoded()
    assert not any(encoded().values())
    file = folder / "config.json"
    config = json.loads(file.read_text())
    assert config[tower][field] != value
    config[tower][field] = value
    file.write_text(json.dumps(config))
    kind = "image" if tower == "vision_config" else "text"
    assert encoded() == {**dict.fromkeys(first, 0), kind: first[kind]}
