"""A version in an experiment tracker: MLflow's own library and its SQLite store."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.small_channel import quick_run
from thumbtune.channel.registry import Registry
from thumbtune.flows.train_flow import train
from thumbtune.reporting.tracking import TrackerError
from thumbtune.store.workspace import Workspace

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_harness")]

TRACKED = {"recipe": "given", "epochs": 2, "batch_size": 8, "report_to": ("mlflow",)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "thumbtune")
    mlflow.set_tracking_uri(None)  # what the environment says
    return uri


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {**quick_run(tmp_path), "training": TRACKED}


def runs_in(store: str) -> list[Run]:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("thumbtune")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def registry_of(options: dict[str, Any]) -> Registry:
    return Registry(Workspace.open(options["workspace"]), "folder", options["channel"])


def test_a_version_is_told_to_mlflow_with_its_parameters_losses_metrics_and_intervals(
    options: dict[str, Any], store: str
) -> None:
    done = train(**options)
    [told] = runs_in(store)
    [version] = registry_of(options).versions()
    assert told.info.run_name == "channel version 1"
    assert told.info.status == "FINISHED"

    told_parameters = told.data.params
    assert told_parameters["version"] == "1"
    assert told_parameters["training.epochs"] == "2"
    assert told_parameters["recipe"] == version.recipe

    client, run_id = MlflowClient(store), told.info.run_id
    losses = client.get_metric_history(run_id, "loss")
    batches = sum(1 for _ in range(0, len(version.learned_from), 8))
    assert losses
    assert [each.step for each in losses] == list(range(1, len(losses) + 1))
    assert all(each.value > 0 for each in losses)
    assert len(losses) <= 2 * batches
    assert [each.step for each in client.get_metric_history(run_id, "eval_loss")] == [
        len(losses) // 2,
        len(losses),
    ]

    figures = told.data.metrics
    assert figures["test_recall_at_1"] == done.fine_tuned_metrics["Recall@1"]
    assert figures["test_untouched_recall_at_1"] == done.untouched_metrics["Recall@1"]
    bounds = figures["test_recall_at_1_low"], figures["test_recall_at_1_high"]
    assert bounds == version.intervals["Recall@1"]
    assert bounds[0] <= figures["test_recall_at_1"] <= bounds[1]


def test_it_is_told_once_and_a_new_version_in_a_run_of_its_own(
    options: dict[str, Any], store: str
) -> None:
    train(**options)
    assert train(**options).stages.startswith("Nothing to do")
    train(**{**options, "training": {**TRACKED, "epochs": 1}})
    assert [run.data.params["version"] for run in runs_in(store)] == ["2", "1"]


def test_a_version_in_closed_form_is_told_too(options: dict[str, Any], store: str) -> None:
    chosen = {key: value for key, value in options.items() if key != "evaluation"}
    train(**{**chosen, "training": {"report_to": ("mlflow",)}})
    [told] = runs_in(store)
    [version] = registry_of(options).versions()
    assert told.data.metrics["test_recall_at_1"] == version.metrics["Recall@1"]


def test_a_version_of_an_earlier_run_is_told_when_a_tracker_is_named(
    options: dict[str, Any], store: str
) -> None:
    train(**{**options, "training": {**TRACKED, "report_to": ()}})
    assert not runs_in(store)
    train(**options)
    [told] = runs_in(store)
    assert told.data.params["version"] == "1"


def test_a_tracker_that_takes_nothing_fails_the_run_and_the_next_one_tells_it(
    options: dict[str, Any], store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(TrackerError, match=r"mlflow could not be told of version 1: .* is kept"):
        train(**options)
    assert registry_of(options).versions()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_tracking_uri(None)  # within one process MLflow holds on to the first
    train(**options)
    assert len(runs_in(store)) == 1


@pytest.mark.parametrize(
    ("tracker", "says"),
    [
        ("mlfow", "training.report_to: mlfow is not supported, only .*mlflow"),
        ("wandb", "training.report_to: .*wandb.*"),
    ],
)
def test_a_tracker_that_is_unknown_or_not_installed_is_told_before_anything_is_done(
    options: dict[str, Any], tracker: str, says: str
) -> None:
    with pytest.raises(TrackerError, match=says):
        train(**{**options, "training": {**TRACKED, "report_to": (tracker,)}})
    assert not registry_of(options).versions()
