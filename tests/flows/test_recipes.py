"""A run as it is by default: the recipe is chosen, every video tests, every video trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from tests.flows.test_train_flow import posted_artifacts
from tests.small_channel import quick_run
from thumbtune.channel.field_scores import last_scores
from thumbtune.channel.registry import Registry
from thumbtune.clip.models import find_model
from thumbtune.data.thumbnails import Example
from thumbtune.flows.train_flow import train
from thumbtune.flows.training import TrainRun
from thumbtune.learning.candidates import Recipe
from thumbtune.learning.evaluation import Prediction
from thumbtune.learning.last_sweep import keep_sweep
from thumbtune.learning.recipes import Sweep
from thumbtune.parameters import NegativesParameters, TrainingParameters
from thumbtune.store.workspace import Workspace
from thumbtune.use.matching import Matcher

pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    asked = quick_run(tmp_path_factory.mktemp("auto"))
    del asked["evaluation"]
    asked["training"] = {"epochs": 1, "learning_rate": 0.01}
    asked["promotion"] = {"rule": "not_worse", "margin": 0.99}
    asked["videos"] = {"expiration_hours": 0}
    return asked


@pytest.fixture(scope="module")
def run(options: dict[str, Any], prefect_harness: None) -> TrainRun:
    done: TrainRun = train(**options)
    return done


def registry_of(options: dict[str, Any]) -> Registry:
    return Registry(Workspace.open(options["workspace"]), "folder", options["channel"])


def test_a_small_channel_is_measured_on_all_its_videos_and_learned_from_whole(
    run: TrainRun, options: dict[str, Any]
) -> None:
    registry = registry_of(options)
    version = registry.versions()[0]
    rows = registry.workspace.read_table(version.examples, Example)
    assert run.judged_on == "out_of_fold"
    assert sorted(version.learned_from) == sorted(row.id for row in rows)
    assert version.answers
    answers = registry.workspace.read_table(version.answers, Prediction)
    assert [answer.video_id for answer in answers] == [row.id for row in rows]
    assert version.gallery == 12  # of 60 videos in five folds
    assert max(answer.rank for answer in answers) <= 12
    mrr = np.mean([1 / answer.rank for answer in answers])
    assert version.metrics["MRR"] == pytest.approx(mrr)


def test_the_report_has_the_three_recipes_side_by_side(
    run: TrainRun, options: dict[str, Any]
) -> None:
    metrics = json.loads((Path(run.report).parent / "metrics.json").read_text())
    key = "yt-title-thumbnail-out_of_fold_Recall@1"
    assert metrics["untouched"][key] == run.untouched_recall_at_1
    assert run.article_metrics
    assert metrics["article"][key] == run.article_metrics["Recall@1"]
    assert metrics["fine_tuned"][key] == run.fine_tuned_recall_at_1
    assert metrics["chance"][key] == pytest.approx(1 / 12)
    page = Path(run.report).read_text()
    for words in ("article's recipe", "What was tried", "closed form", "Where it does best"):
        assert words in page
    recipes = json.loads(str(posted_artifacts()["recipe"].data))
    assert {"recipe", "MRR in folds", "above untouched"} == set(recipes[0])


def test_percentiles_are_those_of_models_that_have_not_learned_from_a_pair(
    run: TrainRun, options: dict[str, Any]
) -> None:
    registry = registry_of(options)
    version = registry.versions()[0]
    assert version.answers
    answers = registry.workspace.read_table(version.answers, Prediction)
    matcher = Matcher.of_version(registry.workspace, version)
    assert matcher.own
    expected = sorted(answer.similarity for answer in answers)
    assert matcher.own.cosines.tolist() == pytest.approx(expected)


def test_a_second_run_has_nothing_to_do(run: TrainRun, options: dict[str, Any]) -> None:
    again = train(**{**options, "videos": {"expiration_hours": 24}})
    again = train(**{**options, "videos": {"expiration_hours": 24}})
    assert again.stages.startswith("Nothing to do")
    assert again.fine_tuned_metrics == run.fine_tuned_metrics


def add_videos(options: dict[str, Any], count: int) -> None:
    folder = Path(options["channel"])
    rows = json.loads((folder / "manifest.json").read_text())
    for n in range(len(rows), len(rows) + count):
        colours = np.random.default_rng(n).integers(40, 255, (9, 16, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((320, 180)).save(folder / f"{n}.jpg")
        rows.append({"id": str(n), "title": f"Title number {n}", "image": f"{n}.jpg"})
    (folder / "manifest.json").write_text(json.dumps(rows))


def test_a_champion_is_met_on_videos_that_it_has_not_learned_from_and_scored_on_them_first(
    run: TrainRun, options: dict[str, Any]
) -> None:
    registry = registry_of(options)
    if registry.champion() is None:  # noise may tell that nothing beats the untouched model
        registry.roll_back(1, "to be met")
    add_videos(options, 8)
    few = train(**options)
    assert "learned from all but 8 of the 68 videos" in few.verdict.why or not few.verdict.promoted
    score = last_scores(registry)[1]
    assert score.videos == [str(n) for n in range(60, 68)]
    assert score.gallery == 12
    field = posted_artifacts()["field"]
    assert "on 8 later videos, each among 12 titles" in str(field.description)

    registry.roll_back(1, "to be met again")
    add_videos(options, 12)
    enough = train(**options).verdict
    if enough.differences:  # not where the untouched model is kept
        against_champion = enough.differences[0]
        assert (against_champion.opponent, against_champion.videos) == ("champion", 20)
        assert enough.differences[1].videos == 80


def test_negatives_from_clip_itself_are_the_wrong_titles_that_it_takes_most_for_right(
    tmp_path: Path,
) -> None:
    asked = quick_run(tmp_path)
    del asked["evaluation"]
    asked["negatives"] = {"method": "clip"}
    train(**asked)
    registry = registry_of(asked)
    rows = registry.workspace.read_table(registry.versions()[0].examples, Example)
    model = SentenceTransformer(asked["model"])  # whole forward passes, nothing stored
    pictures = [Image.open(Path(asked["channel"]) / f"{row.id}.jpg") for row in rows]
    titles = [row.title for row in rows]
    images, texts = (model.encode(each, normalize_embeddings=True) for each in (pictures, titles))
    similar = images @ texts.T
    for number, row in enumerate(rows):
        own = similar[number, number]
        wrong = np.delete(similar[number], number)
        below = wrong[wrong < own - 1e-5]
        assert row.title_neg != row.title
        taken = similar[number, titles.index(row.title_neg or "")]
        assert taken == pytest.approx(below.max() if len(below) else wrong.min(), abs=1e-4)
    assert train(**asked).stages.startswith("Nothing to do")


def test_the_last_sweeps_choice_is_tried_with_its_own_negatives_though_the_run_asks_for_none(
    tmp_path: Path,
) -> None:
    asked = quick_run(tmp_path)
    asked["training"] = {}
    asked["negatives"] = {"method": "none", "text_model": asked["model"]}
    negatives = NegativesParameters(method="hard", ceiling=0.99)
    swept = Recipe(training=TrainingParameters(epochs=1), negatives=negatives)
    registry, nothing = registry_of(asked), registry_of(asked).workspace.write_table("none", [])
    base = find_model(asked["model"]).fingerprint
    found = {"folder": "", "best": swept, "best_valid_mrr": 0, "folds": 1, "base": base}
    keep_sweep(registry, Sweep.model_validate(found | {"trials": nothing, "examples": nothing}))
    train(**asked)
    recipes = json.loads(str(posted_artifacts()["recipe"].data))
    assert any("the last sweep's choice" in row["recipe"] for row in recipes)
