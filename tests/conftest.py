"""One Prefect server for the whole test session; no test reaches the Hugging Face hub."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and workers share the cores
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["THUMBTUNE_PRIVATE_HOSTS"] = "localhost, 127.0.0.1"  # where the stand-ins are
os.environ["THUMBTUNE_YOUTUBE_BACKOFF_SECONDS"] = "0.01"

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    get_current_settings,
    temporary_settings,
)
from pytest_httpserver import HTTPServer
from s3fs import S3FileSystem

from tests.prefect_server import Server, running_server
from tests.s3_server import S3Server
from tests.server_logs import Logs
from tests.youtube_server import YouTubeServer

if TYPE_CHECKING:  # torch takes seconds, in the process that only hands out the tests too
    from thumbtune.channel.registry import Version
    from thumbtune.store.workspace import Workspace
    from thumbtune.use.matching import Matcher

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

LONGEST = (
    *("retraining", "kill", "runners", "processes", "deployment"),
    *("train_flow", "web", "watching", "reuse", "publishing", "faults", "object_storage"),
    *("user_errors", "youtube_lists", "channels", "indexing", "models", "features", "training"),
)
"""Files that start first, so that the workers of pytest-xdist end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and PREFECT.intersection(item.fixturenames):
            item.add_marker("prefect")
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def prefect_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Prefect's persisted results."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logs]:
    """The logs of Prefect's servers and workers; a fault in one of them fails the session."""
    logs = Logs(tmp_path_factory.mktemp("logs"))
    yield logs
    logs.check()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first server leaves its empty database, for all processes of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "prefect.db"


PREFECT = {"prefect_harness", "server"}
"""The fixtures of tests that need a Prefect server."""


@pytest.fixture(scope="session", autouse=True)
def no_own_prefect() -> Iterator[None]:
    """No test starts a Prefect server by the way."""
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}):
        yield


@pytest.fixture(autouse=True)
def no_prefect(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that does not ask for a Prefect server does not find one either."""
    known = get_current_settings().api.url
    if not known or PREFECT.intersection(request.fixturenames):
        yield
        return
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.fixture(scope="session")
def prefect_harness(
    prefect_results: Path, tmp_path_factory: pytest.TempPathFactory, logs: Logs, tables: Path
) -> Iterator[None]:
    """A throw-away Prefect server for the flows that run in this process.

    It only keeps their records: what a server does by itself costs it twice the time of that.
    """
    home = tmp_path_factory.mktemp("prefect")
    with (
        running_server(home, logs, tables, "--no-services") as server,
        temporary_settings(
            {
                PREFECT_API_URL: server.api,
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # each run's end waits a second for it
                PREFECT_SERVER_DATABASE_CONNECTION_URL: server.database,
                PREFECT_LOCAL_STORAGE_PATH: prefect_results,
                PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
            }
        ),
    ):
        yield
        APILogWorker.drain_all()  # what is on its way needs the server
        EventsWorker.drain_all()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, logs: Logs, tables: Path) -> Iterator[Server]:
    """A server with the deployments of prefect.yaml, for workers."""
    home = tmp_path_factory.mktemp("prefect")
    with contextlib.ExitStack() as stack:
        if database := os.environ.get("THUMBTUNE_TEST_DATABASE_URL"):  # `make test-postgresql`
            server = Server(home, logs, database=database)
            stack.enter_context(server.until_the_end())
        else:
            server = stack.enter_context(running_server(home, logs, tables))
        server.deploy()
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.server.stop()


@pytest.fixture
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Goes to a machine that has no mirrors of workspaces yet; the folder where they will be."""
    machines = itertools.count()

    def go() -> Path:
        mirrors = tmp_path / f"machine-{next(machines)}"
        monkeypatch.setenv("THUMBTUNE_CACHE", str(mirrors))
        return mirrors

    go()
    return go


@pytest.fixture
def s3(
    s3_server: S3Server, another_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Server]:
    """A stand-in for S3 on this machine, with its credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # it keeps the credentials of its first use
    yield s3_server
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def make_httpserver() -> Iterator[HTTPServer]:
    """The server of `httpserver`, in which a client that keeps its line open blocks nobody."""
    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> "Workspace":
    from thumbtune.store.workspace import Workspace

    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def version(workspace: "Workspace") -> "Version":
    """A champion that can be used."""
    from tests.small_channel import add_version

    return add_version(workspace)


@pytest.fixture
def matcher(workspace: "Workspace", version: "Version") -> "Matcher":
    from thumbtune.use.matching import Matcher

    return Matcher.of_version(workspace, version)


@pytest.fixture
def youtube(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> YouTubeServer:
    """A stand-in for YouTube on this machine, with its key in the environment."""
    server = YouTubeServer(httpserver)
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_API_URL", server.api_url)
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_FEED_URL", server.feed_url)
    monkeypatch.setenv("YOUTUBE_API_KEY", server.key)
    return server
