"""Real Prefect servers with the deployments of prefect.yaml, and process workers.

They are started as compose.yaml's containers are: by deploy/service.sh.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from filelock import FileLock
from pytest_httpserver.httpserver import HTTPServer
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.server_logs import Logs

ROOT = Path(__file__).parent.parent
SERVICE = str(ROOT / "deploy" / "service.sh")
DATABASE_IS_LOCKED = Retry(8, backoff_factor=0.2, status_forcelist=[503], allowed_methods=None)
"""Prefect's own client asks again too while others write to SQLite."""


PATIENCE = 300
"""Seconds: what takes 40 alone took over 120 where three such tests shared two slow cores."""


def free_port() -> int:
    with HTTPServer() as server:
        return server.port


class Server:
    """A Prefect server of its own, with its own database and results; its logs are kept."""

    def __init__(self, home: Path, logs: Logs, *options: str, database: str = "") -> None:
        port = free_port()
        self.logs = logs
        self.api = f"http://127.0.0.1:{port}/api"
        self.database = database or f"sqlite+aiosqlite:///{home / 'prefect.db'}"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
        }
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with logs.new("server").open("wb") as log:
            self.process = subprocess.Popen(
                [SERVICE, "server", *options],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Wait until it is ready; it is stopped at the end."""
        try:
            self.wait_until_ready()
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop as a service manager does."""
        self.process.terminate()
        self.process.wait(60)

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, PATIENCE, lambda: "the Prefect server has not started")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "the Prefect server has ended"
        try:
            return requests.get(f"{self.api}/health", timeout=10).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def prefect(self, *arguments: str) -> str:
        """Run a prefect command from the project's folder; what it printed."""
        return self._do("prefect", [sys.executable, "-m", "prefect", *arguments])

    def deploy(self) -> None:
        """Make the work pool and the deployments of prefect.yaml."""
        self._do("deploy", [SERVICE, "deploy"])

    def _do(self, name: str, command: list[str]) -> str:
        with self.logs.new(name).open("w+") as log:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=540,
            )
            log.seek(0)
            said = log.read()
        assert done.returncode == 0, said
        return said

    def find(self, what: str) -> list[dict[str, Any]]:
        return self._post(f"{what}/filter", {}).json()

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a run of `flow/deployment` with some parameters changed, as the UI does; its id."""
        found = requests.get(f"{self.api}/deployments/name/{deployment}", timeout=60).json()
        made = self._post(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made.json()["id"])

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, the oldest first."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"}
        return self._post("flow_runs/filter", wanted).json()

    def _post(self, path: str, data: dict[str, Any]) -> requests.Response:
        with requests.Session() as session:
            session.mount(self.api, HTTPAdapter(max_retries=DATABASE_IS_LOCKED))
            answer = session.post(f"{self.api}/{path}", json=data, timeout=60)
        assert answer.ok, answer.text
        return answer

    def wait_for_runs(
        self, flow: str, count: int, seconds: float = PATIENCE
    ) -> list[dict[str, Any]]:
        """Wait until so many runs of a flow are completed; all its runs."""

        def done() -> bool:
            return sum(run["state_type"] == "COMPLETED" for run in self.runs(flow)) >= count

        wait_until(done, seconds, lambda: str([run["state"] for run in self.runs(flow)]))
        return self.runs(flow)

    @contextmanager
    def worker(self, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker in a process group of its own; killed at the end with all its runs."""
        with self.logs.new("worker").open("wb") as log:
            process = subprocess.Popen(
                [SERVICE, "worker", *options],
                env=self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill(process)


@contextmanager
def running_server(home: Path, logs: Logs, tables: Path, *options: str) -> Iterator[Server]:
    """A server that is ready, on SQLite, started with options of `prefect server start`.

    To make Prefect's tables takes longer than to start its server, so the first one leaves a copy
    of its empty database at `tables` for the others, in whichever process of pytest-xdist.
    """
    with FileLock(f"{tables}.lock"):
        is_first = not tables.exists()
        if not is_first:
            shutil.copy(tables, home / "prefect.db")
        server = Server(home, logs, *options)
        try:
            if is_first:
                server.wait_until_ready()
                copy_database(home / "prefect.db", tables)
        except BaseException:
            server.stop()
            raise
    with server.until_the_end():
        yield server


def copy_database(source: Path, to: Path) -> None:
    """Copy an SQLite database that is in use; it appears whole."""
    half = to.with_suffix(".half")
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(half)) as new:
        old.backup(new)
    half.rename(to)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """As a power cut: the worker and its runs are gone at once."""
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)


def wait_until(
    done: Callable[[], bool], seconds: float = PATIENCE, tell: Callable[[], str] = lambda: ""
) -> None:
    """Ask until it is so; fail after some time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {seconds:g} s: {tell()}")
        time.sleep(0.5)
