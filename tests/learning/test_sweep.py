"""The search for hyperparameters: real Prefect runs on the bundled channel and CLIP."""

import json
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial
from PIL import Image
from prefect import flow

from tests.flows.test_train_flow import posted_artifacts
from thumbtune.arguments import parse_command_line
from thumbtune.clip.models import find_model
from thumbtune.data.thumbnails import Example
from thumbtune.flows.searching import SweepRun
from thumbtune.flows.sweep_flow import main, sweep
from thumbtune.flows.train_flow import train
from thumbtune.learning.candidates import Recipe
from thumbtune.learning.recipes import RecipeTrainer, Sweep, Trial
from thumbtune.learning.sweep import FOLDS, folds_for, folds_of, suggest
from thumbtune.learning.training import fine_tune
from thumbtune.learning.weights import set_parameters
from thumbtune.parameters import SearchParameters, TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.search_hyperparameters import search_hyperparameters

pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.fixture(scope="module")
def clip() -> ModelReference:
    return find_model("sample")


def example(number: int, title: str, split: str) -> Example:
    fields: dict[str, Any] = {"id": str(number), "title": title, "title_neg": None, "split": split}
    return Example(**fields, thumbnails={}, image=f"thumbnails/{number}.png")


def write_examples(workspace: Workspace, test_title: str = "unseen") -> Table:
    """Forty rows, eight of them test."""
    (workspace.root / "thumbnails").mkdir(exist_ok=True)
    rows = []
    for n in range(40):
        color = (n * 37 % 256, n * 91 % 256, n * 13 % 256)
        Image.new("RGB", (64, 36), color).save(workspace.root / f"thumbnails/{n}.png")
        split = "train" if n < 24 else "valid" if n < 32 else "test"
        title = f"{test_title} {n}" if split == "test" else f"title {n}"
        rows.append(example(n, title, split))
    return workspace.write_table("examples", rows)


@flow
def searching(workspace: Workspace, examples: Table, clip: ModelReference, trials: int) -> Sweep:
    """The search alone, two folds."""
    parameters = TrainParameters(source="sample", workspace=workspace.root)
    options = SearchParameters(trials=trials, folds=2)
    return search_hyperparameters(workspace, clip, clip, examples, parameters, options, "float32")


@given(
    titles=st.lists(st.sampled_from("abcdefghijkl"), min_size=12, max_size=40).filter(
        lambda titles: len(set(titles)) >= FOLDS
    ),
    seed=st.integers(0, 99),
)
def test_each_row_validates_once_and_equal_titles_stay_together(
    titles: list[str], seed: int
) -> None:
    splits = ("train", "valid", "test")
    rows = [example(n, title, splits[n % 3]) for n, title in enumerate(titles)]
    rows += [example(100 + n, f"{n}", "train") for n in range(FOLDS)]
    folds = folds_of(rows, FOLDS, seed)
    validated = Counter(row.id for fold in folds for row in fold if row.split == "valid")
    assert validated == Counter(row.id for row in rows if row.split != "test")
    for fold in folds:
        in_valid = {row.title for row in fold if row.split == "valid"}
        assert in_valid.isdisjoint(row.title for row in fold if row.split == "train")
        assert {row.split for row in fold} == {"train", "valid"}


def test_small_channels_are_validated_in_folds_and_large_ones_on_their_split() -> None:
    rows = [example(n, f"title {n}", "valid" if n % 5 else "train") for n in range(500)]
    assert folds_for(rows[:-1], None) == FOLDS
    assert folds_for(rows, None) == 1
    assert folds_for(rows, 3) == 3
    assert folds_of(rows, 1, 0) == [rows]


def test_the_search_does_not_look_at_test(workspace: Workspace, clip: ModelReference) -> None:
    first = searching(workspace, write_examples(workspace), clip, 4)
    other = searching(workspace, write_examples(workspace, "something else"), clip, 4)
    assert (first.best, first.best_valid_mrr) == (other.best, other.best_valid_mrr)
    assert first.folder != other.folder
    trials = workspace.read_table(first.trials, Trial)
    assert trials == workspace.read_table(other.trials, Trial)
    assert len({trial.valid_mrr for trial in trials}) > 1


def test_a_search_goes_on_from_the_trials_that_are_there_as_if_it_had_not_stopped(
    workspace: Workspace, clip: ModelReference, tmp_path: Path
) -> None:
    examples = write_examples(workspace)
    two = workspace.read_table(searching(workspace, examples, clip, 2).trials, Trial)
    found = searching(workspace, examples, clip, 4)
    trials = workspace.read_table(found.trials, Trial)
    assert trials[:2] == two
    assert len({trial.learning_rate for trial in trials}) == 4
    elsewhere = Workspace.open(tmp_path / "elsewhere")
    at_once = searching(elsewhere, write_examples(elsewhere), clip, 4)
    assert elsewhere.read_table(at_once.trials, Trial) == trials
    assert found.best_valid_mrr == max(trial.valid_mrr for trial in trials)
    article = trials[0]
    assert (article.epochs, article.batch_size, article.learning_rate) == (2, 16, 1e-4)
    assert (article.scale, article.negatives, article.symmetric) == (20, "least_similar", False)


def validated(trainer: RecipeTrainer, fold: list[Example], recipe: Recipe) -> list[float]:
    """The MRR after each epoch, by the Trainer."""
    rows = trainer.with_negatives(fold, recipe.negatives)
    splits = [[row for row in rows if row.split == split] for split in ("train", "valid")]
    set_parameters(trainer.head, trainer.untouched)
    how = (recipe.training, trainer.parameters.evaluation, trainer.parameters.seed)
    history, _ = fine_tune(trainer.head, trainer.workspace, *splits, *how)
    return [point.valid_mrr for point in history if point.valid_mrr is not None]


def test_a_trial_is_scored_by_its_last_epoch_and_so_is_the_recipe_that_comes_out(
    workspace: Workspace, clip: ModelReference
) -> None:
    examples = write_examples(workspace)
    found = searching(workspace, examples, clip, 6)
    known = [row for row in workspace.read_table(examples, Example) if row.split != "test"]
    parameters = TrainParameters(source="sample", workspace=workspace.root)
    trainer = RecipeTrainer(workspace, clip, clip, known, parameters, "float32")
    differs = False
    for trial in workspace.read_table(found.trials, Trial):
        recipe = suggest(FixedTrial(trial.model_dump()), trainer.base)
        curves = [validated(trainer, fold, recipe) for fold in folds_of(known, 2, parameters.seed)]
        last = statistics.mean(curve[-1] for curve in curves)
        assert trial.valid_mrr == pytest.approx(last)
        differs |= statistics.mean(map(max, curves)) > last
    assert differs
    assert not found.best.training.keep_best_epoch


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, clip: ModelReference) -> dict[str, Any]:
    return {
        "source": "sample",
        "model": clip.path,
        "workspace": tmp_path_factory.mktemp("sweep"),
        "negatives": {"text_model": clip.path},
        "sweep": {"trials": 3, "folds": 2, "seeds": 2},
    }


@pytest.fixture(scope="module")
def run(options: dict[str, Any]) -> SweepRun:
    return sweep(**options)


@pytest.mark.compatibility
def test_a_sweep_leaves_its_trials_a_plot_and_a_comparison_on_test(run: SweepRun) -> None:
    folder = Path(run.best_parameters).parent
    trials = pd.read_csv(folder / "trials.csv")
    assert len(trials) == 3
    assert math.isclose(trials["valid_mrr"].max(), run.best_valid_mrr)
    with Image.open(folder / "trials.png") as picture:
        assert picture.size == (1280, 800)
    compared = json.loads((folder / "comparison.json").read_text())
    assert [result["name"] for result in compared["results"]] == [
        "untouched",
        "the article's recipe",
        "the sweep's choice",
    ]
    assert [len(result["recall_at_1"]) for result in compared["results"]] == [1, 2, 2]
    artifacts = posted_artifacts()
    assert len(json.loads(str(artifacts["sweep-trials"].data))) == 3
    assert "choice" in str(artifacts["sweep-comparison"].data)
    assert "](data:image/png;base64," in str(artifacts["sweep-plot"].data)


def test_training_takes_the_best_parameters_as_a_file(
    run: SweepRun, options: dict[str, Any]
) -> None:
    parameters = parse_command_line(TrainParameters, ["--parameters", run.best_parameters])
    assert parameters.workspace == str(options["workspace"])
    assert parameters.negatives.text_model == options["negatives"]["text_model"]
    trials = pd.read_csv(Path(run.best_parameters).parent / "trials.csv")
    best = trials.loc[trials["valid_mrr"].idxmax()]
    assert parameters.training.learning_rate == pytest.approx(best["learning_rate"])
    assert parameters.negatives.method == best["negatives"]
    features = sorted((options["workspace"] / "features").rglob("*"))
    train(**dict(parameters))
    assert sorted((options["workspace"] / "features").rglob("*")) == features


def test_a_second_sweep_has_nothing_to_do(
    run: SweepRun, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(**options).stages.startswith("Nothing to do")
    file = Path(options["workspace"]) / "again.json"
    file.write_text(json.dumps(options, default=str))
    assert main(["--parameters", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "the sweep's choice" in printed
    assert f"--parameters {run.best_parameters}" in printed
