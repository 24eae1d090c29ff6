"""The deployments of prefect.yaml, on a real Prefect server with a real process worker."""

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import requests

from tests.prefect_server import Server, wait_until

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


@pytest.mark.compatibility
def test_the_watch_is_scheduled_every_morning_from_its_deployment_on(server: Server) -> None:
    [watch] = [each for each in server.find("deployments") if each["name"] == "watch"]

    def scheduled() -> list[datetime]:
        runs = [run for run in server.runs("watch") if run["deployment_id"] == watch["id"]]
        return sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)

    wait_until(lambda: len(scheduled()) == 3, 60)
    mornings = [time.astimezone(ZoneInfo("Europe/Berlin")) for time in scheduled()]
    assert {(time.hour, time.minute) for time in mornings} == {(6, 0)}
    assert [(time.date() - mornings[0].date()).days for time in mornings] == [0, 1, 2]


@pytest.mark.compatibility
def test_a_worker_runs_a_deployment_with_changed_parameters_and_posts_the_artifacts(
    server: Server, tmp_path: Path
) -> None:
    server.prefect(
        *("deployment", "run", "train/sample"),
        *("--param", f"workspace={json.dumps(str(tmp_path / 'workspace'))}"),
        *("--param", 'training={"epochs": 1, "learning_rate": 0.001}'),
    )
    server.prefect("worker", "start", "--pool", "thumbtune", "--run-once")
    run = server.runs("train")[-1]
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["parameters"]["negatives"] == {"text_model": "sample"}  # as in prefect.yaml
    assert run["parameters"]["training"]["epochs"] == 1

    artifacts = {
        artifact["key"]: artifact
        for artifact in server.find("artifacts")
        if artifact["flow_run_id"] == run["id"]
    }
    assert set(artifacts) == {
        "data-funnel",
        "metrics",
        "parameters",
        "promotion",
        "recipe",
        "trainable-parameters",
        "worst-misses",
    }
    values = {row["parameter"]: row["value"] for row in json.loads(artifacts["parameters"]["data"])}
    assert values["training.epochs"] == "1"
    [report] = (tmp_path / "workspace" / "models").glob("*/report.html")
    assert report.stat().st_size > 100_000
