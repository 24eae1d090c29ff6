"""A new model meets the champion, whatever that one is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.small_channel import quick_run
from tests.tiny_clip import save_tiny_clip
from thumbtune.channel.registry import Registry, Version
from thumbtune.clip.shards import OWN
from thumbtune.data.thumbnails import Example
from thumbtune.flows.train_flow import train
from thumbtune.learning.evaluation import RecallEvaluator
from thumbtune.learning.promotion import Verdict
from thumbtune.parameters import EvaluationParameters
from thumbtune.store.model_reference import hash_of
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_harness")

LAST_LAYERS = ["projection", "vision_model.encoder.layers.0", "text_model.encoder.layers.0"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Parameters for a quick run, with which a first one was made."""
    options = quick_run(tmp_path_factory.mktemp("first"))
    options["split"] = {
        "train": 0.45,
        "valid": 0.15,
    }  # test has the 20 videos that a champion needs
    train(**options)
    return options


@pytest.fixture
def options(first: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same with a copy of its workspace."""
    shutil.copytree(first["workspace"], tmp_path / "workspace")
    return {**first, "workspace": tmp_path / "workspace"}


def registry_of(options: dict[str, Any]) -> Registry:
    return Registry(Workspace.open(options["workspace"]), "folder", options["channel"])


def train_another(options: dict[str, Any], **changes: Any) -> Verdict:
    training = {"recipe": "given", "learning_rate": 0.02, "epochs": 1}
    return train(**{**options, "training": training, **changes}).verdict


def mrr(options: dict[str, Any], version: Version, examples: Version) -> float:
    """What a version's whole model measures on the test split of another's examples."""
    workspace = Workspace.open(options["workspace"])
    rows = workspace.read_table(examples.examples, Example)
    test = [row for row in rows if row.split == "test"]
    model = SentenceTransformer(str(workspace.root / version.model.path))
    return RecallEvaluator(workspace, test, "test", EvaluationParameters())(model)[
        "yt-title-thumbnail-test_MRR"
    ]


@pytest.mark.parametrize("champions", ["other layers", "another base model"])
def test_a_champion_of_another_kind_is_measured_by_its_own_record(
    options: dict[str, Any], tmp_path: Path, champions: str
) -> None:
    if champions == "other layers":
        training = {**options["training"], "trainable": LAST_LAYERS}
        train(**{**options, "training": training})
    else:
        other = save_tiny_clip(tmp_path / "other", seed=5, side=48, dimensions=6)
        train(**{**options, "model": str(other)})
    registry = registry_of(options)
    registry.roll_back(2, "to be met")
    verdict = train_another(options)
    _, first, second = registry.versions()
    against_champion, against_untouched = verdict.differences
    assert (against_champion.opponent, against_untouched.opponent) == ("champion", "untouched")
    assert against_champion.other == pytest.approx(mrr(options, first, second))
    assert against_champion.challenger == pytest.approx(mrr(options, second, second))


def truncate(model: Path, record: Path) -> None:
    weights = model / OWN
    weights.write_bytes(weights.read_bytes()[:500])


def spoil(model: Path, record: Path) -> None:
    """Weights that load, and are not those that were stored."""
    broken = SentenceTransformer(str(model))
    with torch.no_grad():
        broken[0].model.text_projection.weight.fill_(float("nan"))
    broken.save_pretrained(str(model), create_model_card=False)


def outdate(model: Path, record: Path) -> None:
    """A model of a class that this sentence-transformers does not have, as its record knows it."""
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.OfLongAgo"
    (model / "modules.json").write_text(json.dumps(modules))
    known = json.loads(record.read_text())
    known["model"]["fingerprint"] = hash_of(model)
    record.write_text(json.dumps(known))


def forget_layers(model: Path, record: Path) -> None:
    known = json.loads(record.read_text())
    known["parameters"]["training"]["trainable"] = ["layers.23"]
    record.write_text(json.dumps(known))


def remove(model: Path, record: Path) -> None:
    shutil.rmtree(model)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "its files are damaged"),
        (spoil, "its files are damaged"),
        (outdate, "OfLongAgo"),
        (forget_layers, "no parameter's name contains 'layers.23'"),
        (remove, "are gone"),
    ],
)
def test_a_champion_that_cannot_be_measured_costs_the_new_model_nothing(
    options: dict[str, Any], damage: Callable[[Path, Path], None], reason: str
) -> None:
    registry = registry_of(options)
    workspace = registry.workspace
    damage(
        workspace.root / registry.versions()[0].model.path,
        workspace.root / registry.path / "versions" / "000001.json",
    )

    verdict = train_another(options)
    assert [version.number for version in registry.versions()] == [1, 2]
    assert [difference.opponent for difference in verdict.differences] == ["untouched"]
    assert "not compared with the champion, version 1, which cannot be measured: " in verdict.why
    assert reason in verdict.why
    assert registry.decisions()[-1].why == verdict.why


def test_a_new_model_that_is_no_better_leaves_a_broken_champion_in_its_place(
    options: dict[str, Any],
) -> None:
    registry = registry_of(options)
    truncate(registry.workspace.root / registry.versions()[0].model.path, Path())
    shutil.rmtree(registry.workspace.root / "indexes")
    asked = {
        "training": {"recipe": "given", "learning_rate": 1e-12},
        "promotion": {"rule": "better"},
    }
    for is_new in (True, False):
        verdict = train_another(options, **asked)
        assert (verdict.version, verdict.promoted, verdict.champion) == (2, False, 1)
        assert verdict.is_new is is_new
        assert "kept as it was: its answers are those of the untouched model" in verdict.why
        assert "not compared with the champion" in verdict.why


def test_an_unchanged_model_is_kept_as_it_was_and_not_promoted(
    options: dict[str, Any], tmp_path: Path
) -> None:
    nothing = {
        "training": {"recipe": "given", "learning_rate": 1e-12},
        "workspace": tmp_path / "empty",
    }
    verdict = train_another(options, **nothing)
    assert (verdict.version, verdict.champion, verdict.promoted) == (1, None, False)
    assert verdict.why == "kept as it was: its answers are those of the untouched model"
