"""A real Prefect server of its own, with the deployments of prefect.yaml, and process workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver.httpserver import HTTPServer
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

ROOT = Path(__file__).parent.parent
PREFECT = [sys.executable, "-m", "prefect"]
DATABASE_IS_LOCKED = Retry(8, backoff_factor=0.2, status_forcelist=[503], allowed_methods=None)
"""Prefect's own client asks again too while others write to SQLite."""


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
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        if database := os.environ.get("THUMBTUNE_TEST_DATABASE_URL"):  # `make test-postgresql`
            self.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
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

    def run(self, deployment: str, **parameters: Any) -> None:
        """Start a run of `flow/deployment` with some parameters changed, as the UI does."""
        url = f"{self.api}/deployments"
        found = requests.get(f"{url}/name/{deployment}", timeout=10).json()
        with requests.Session() as session:
            session.mount(self.api, HTTPAdapter(max_retries=DATABASE_IS_LOCKED))
            answer = session.post(
                f"{url}/{found['id']}/create_flow_run", json={"parameters": parameters}, timeout=30
            )
        assert answer.ok, answer.text

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, the oldest first."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"}
        return requests.post(f"{self.api}/flow_runs/filter", json=wanted, timeout=10).json()

    def wait_for_runs(self, flow: str, count: int, seconds: float = 120) -> list[dict[str, Any]]:
        """Wait until so many runs of a flow are completed; all its runs."""

        def done() -> bool:
            return sum(run["state_type"] == "COMPLETED" for run in self.runs(flow)) >= count

        wait_until(done, seconds, lambda: str([run["state"] for run in self.runs(flow)]))
        return self.runs(flow)

    @contextmanager
    def worker(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker in a process group of its own; killed at the end with all its runs."""
        process = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "thumbtune"],
            cwd=ROOT,
            env=self.environment | environment,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """As a power cut: the worker and its runs are gone at once."""
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)


def wait_until(
    done: Callable[[], bool], seconds: float, tell: Callable[[], str] = lambda: ""
) -> None:
    """Ask until it is so; fail after some time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {seconds:g} s: {tell()}")
        time.sleep(0.5)
