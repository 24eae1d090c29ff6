"""The deployments of prefect.yaml, on a real Prefect server with a real process worker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver.httpserver import HTTPServer

ROOT = Path(__file__).parent.parent
PREFECT = [sys.executable, "-m", "prefect"]


def free_port() -> int:
    with HTTPServer() as server:
        return server.port


class Server:
    """A Prefect server of its own, with its own database and results."""

    def __init__(self, home: Path) -> None:
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
        }
        self.environment |= {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "HF_HUB_OFFLINE": "1",
        }
        command = [*PREFECT, "server", "start", "--port", str(port)]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL)

    def wait_until_ready(self) -> None:
        for _ in range(240):
            try:
                if requests.get(f"{self.api}/health", timeout=2).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.5)
        pytest.fail("the Prefect server did not start within two minutes")

    def prefect(self, *arguments: str) -> str:
        """Run a prefect command from the project's folder; what it printed."""
        done = subprocess.run(
            [*PREFECT, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(self, what: str) -> list[dict[str, Any]]:
        return requests.post(f"{self.api}/{what}/filter", json={}, timeout=10).json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect"))
    try:
        server.wait_until_ready()
        server.prefect("work-pool", "create", "thumbtune", "--type", "process")
        server.prefect("--no-prompt", "deploy", "--all")
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


def test_every_deployment_has_the_form_of_the_parameter_model(server: Server) -> None:
    deployments = server.find("deployments")
    assert {deployment["name"] for deployment in deployments} == {"train", "sample", "sweep"}
    for deployment in deployments:
        form = deployment["parameter_openapi_schema"]["properties"]
        assert {"channel", "training", "split"} <= set(form)
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


def test_a_worker_runs_a_deployment_with_changed_parameters_and_posts_the_artifacts(
    server: Server, tmp_path: Path
) -> None:
    server.prefect(
        *("deployment", "run", "train/sample"),
        *("--param", f"workspace={json.dumps(str(tmp_path / 'workspace'))}"),
        *("--param", 'training={"epochs": 1, "learning_rate": 0.001}'),
    )
    server.prefect("worker", "start", "--pool", "thumbtune", "--run-once")
    [run] = server.find("flow_runs")
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["parameters"]["negatives"] == {"text_model": "sample"}  # as in prefect.yaml
    assert run["parameters"]["training"]["epochs"] == 1

    artifacts = {artifact["key"]: artifact for artifact in server.find("artifacts")}
    assert set(artifacts) == {
        "data-funnel",
        "loss-curve",
        "metrics",
        "parameters",
        "promotion",
        "trainable-parameters",
        "worst-misses",
    }
    assert {artifact["flow_run_id"] for artifact in artifacts.values()} == {run["id"]}
    values = {row["parameter"]: row["value"] for row in json.loads(artifacts["parameters"]["data"])}
    assert values["training.epochs"] == "1"
    [report] = (tmp_path / "workspace" / "models").glob("*/report.html")
    assert report.stat().st_size > 100_000
