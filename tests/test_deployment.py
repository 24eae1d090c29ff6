"""The deployments of prefect.yaml, on a real Prefect server with a real process worker."""

import json
import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests

from tests.prefect_server import Server, wait_until
from thumbtune.tasks.cancelling import KEPT

pytestmark = pytest.mark.whole


def test_every_deployment_has_the_form_of_the_parameter_model(server: Server) -> None:
    deployments = server.find("deployments")
    assert {deployment["name"] for deployment in deployments} == {
        "train",
        "sample",
        "sweep",
        "watch",
    }
    for deployment in deployments:
        form = deployment["parameter_openapi_schema"]["properties"]
        expected = (
            {"channels", "min_new"} if deployment["name"] == "watch" else {"channel", "split"}
        )
        assert expected <= set(form)
        assert all(field["description"] for field in form.values())


def test_a_wrong_parameter_is_refused_before_a_run_is_made(server: Server) -> None:
    [sample] = [d for d in server.find("deployments") if d["name"] == "sample"]
    answer = requests.post(
        f"{server.api}/deployments/{sample['id']}/create_flow_run",
        json={"parameters": {"training": {"epochs": 0}}},
        timeout=10,
    )
    assert answer.status_code == 409
    assert "epochs" in answer.text


@pytest.mark.parametrize("deployment", ["train", "sweep"])
def test_a_run_without_a_channel_is_refused_before_it_is_made(
    server: Server, deployment: str
) -> None:
    [found] = [d for d in server.find("deployments") if d["name"] == deployment]
    address = f"{server.api}/deployments/{found['id']}/create_flow_run"
    assert found["parameter_openapi_schema"]["required"] == ["channel"]
    answer = requests.post(address, json={"parameters": {"seed": 3}}, timeout=10)
    assert answer.status_code == 409
    assert "channel" in answer.text
    assert "required" in answer.text


@pytest.mark.compatibility
def test_the_watch_is_scheduled_every_morning_from_its_deployment_on(server: Server) -> None:
    [watch] = [each for each in server.find("deployments") if each["name"] == "watch"]

    def scheduled() -> list[datetime]:
        runs = [run for run in server.runs("watch") if run["deployment_id"] == watch["id"]]
        return sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)

    wait_until(lambda: len(scheduled()) == 3)
    mornings = [time.astimezone(ZoneInfo("Europe/Berlin")) for time in scheduled()]
    assert {(time.hour, time.minute) for time in mornings} == {(6, 0)}
    assert [(time.date() - mornings[0].date()).days for time in mornings] == [0, 1, 2]


def logged(server: Server, run: dict[str, Any]) -> list[dict[str, Any]]:
    of_run = {"flow_run_id": {"any_": [run["id"]]}}
    asked = {"logs": of_run, "sort": "TIMESTAMP_ASC", "limit": 200}
    return requests.post(f"{server.api}/logs/filter", json=asked, timeout=60).json()


def steps(server: Server, run: dict[str, Any]) -> dict[str, str]:
    """Name of a task run → its state."""
    asked = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    found = requests.post(f"{server.api}/task_runs/filter", json=asked, timeout=60).json()
    return {step["name"]: step["state_name"] for step in found}


def state(server: Server, run: dict[str, Any]) -> str:
    [found] = [each for each in server.runs("train") if each["id"] == run["id"]]
    return str(found["state_name"])


def told(server: Server, run: dict[str, Any]) -> str:
    """What a test that waited in vain says of a run."""
    lines = "\n".join(line["message"] for line in logged(server, run))
    return f"{state(server, run)}; {steps(server, run)}\n{lines}"


@pytest.mark.compatibility
def test_a_worker_runs_a_deployment_with_changed_parameters_and_posts_the_artifacts(
    server: Server, tmp_path: Path
) -> None:
    """A run gives one number of a group: the others are the deployment's, not the defaults."""
    server.prefect(
        *("deployment", "run", "train/sample"),
        *("--param", f"workspace={json.dumps(str(tmp_path / 'workspace'))}"),
        *("--param", 'training={"epochs": 1}'),
    )
    server.prefect("worker", "start", "--pool", "thumbtune", "--run-once")
    run = server.runs("train")[-1]
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["parameters"]["negatives"] == {"text_model": "sample"}  # as in prefect.yaml
    said = [line["message"] for line in logged(server, run)]
    assert "Taken from the deployment: training.learning_rate 0.001" in said
    assert any("training.epochs 1 (there 10)" in line for line in said)

    assert re.fullmatch(r"train sample · R@1 0\.\d\d → 0\.\d\d · promoted", run["name"])
    assert {"channel:sample", "source:sample", "trigger:by-hand", "training"} <= set(run["tags"])
    assert {"fetch-thumbnails 1-100", "resolve-model model", "train"} <= set(steps(server, run))

    artifacts = {
        artifact["key"]: artifact
        for artifact in server.find("artifacts")
        if artifact["flow_run_id"] == run["id"] and artifact["key"]
    }
    [channel] = {key.rpartition("sample-")[2] for key in artifacts}
    kinds = {key.removesuffix(f"-sample-{channel}"): each for key, each in artifacts.items()}
    assert set(kinds) == {
        "data-funnel",
        "metrics",
        "parameters",
        "promotion",
        "recipe",
        "summary",
        "trainable-parameters",
        "worst-misses",
    }
    values = {row["parameter"]: row["value"] for row in json.loads(kinds["parameters"]["data"])}
    assert (values["training.epochs"], values[r"training.learning\_rate"]) == ("1", "0.001")
    assert re.fullmatch(r"R@1 0\.\d\d → 0\.\d\d · promoted", kinds["summary"]["description"])
    assert "# sample: version 1 promoted" in kinds["summary"]["data"]
    [report] = (tmp_path / "workspace" / "models").glob("*/report.html")
    assert report.stat().st_size > 100_000


def test_a_run_that_is_cancelled_ends_so_in_its_steps_and_its_log_and_the_next_goes_on(
    server: Server, tmp_path: Path
) -> None:
    long = {"epochs": 1000, "recipe": "given"}
    asked = {"workspace": str(tmp_path), "evaluation": {"method": "holdout"}}
    with server.worker():
        run = {"id": server.run("train/sample", **asked, training=long)}
        wait_until(
            lambda: steps(server, run).get("train") == "Running", tell=lambda: told(server, run)
        )
        server.prefect("flow-run", "cancel", run["id"])
        wait_until(lambda: state(server, run) == "Cancelled", tell=lambda: told(server, run))
        assert "Cancelled" in steps(server, run).values()
        assert set(steps(server, run).values()) <= {"Cancelled", "Completed", "Cached"}
        assert KEPT in [line["message"] for line in logged(server, run)]
        assert not [line for line in logged(server, run) if line["level"] >= logging.ERROR]

        before = sum(each["state_type"] == "COMPLETED" for each in server.runs("train"))
        server.run("train/sample", **asked, training={**long, "epochs": 1})
        after = server.wait_for_runs("train", before + 1)[-1]
        assert steps(server, after)["encode-features 1-272"] == "Cached"


def test_a_watch_of_no_channels_ends_in_a_state_that_says_so(server: Server) -> None:
    started = server.run("watch/watch")
    server.prefect("worker", "start", "--pool", "thumbtune", "--run-once")
    [run] = [run for run in server.runs("watch") if run["id"] == started]
    assert run["state_type"] == "COMPLETED"
    assert run["name"] == "watch channels.yaml"
    assert run["state"]["message"] == "channels.yaml lists no channels yet: add yours."
