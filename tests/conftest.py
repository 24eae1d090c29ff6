"""One Prefect server for the whole test session; no test reaches the Hugging Face hub."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and workers share the cores
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["THUMBTUNE_PRIVATE_HOSTS"] = "localhost, 127.0.0.1"  # where the stand-ins are
os.environ["THUMBTUNE_YOUTUBE_BACKOFF_SECONDS"] = "0.05"

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from prefect.settings import (
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness
from pytest_httpserver import HTTPServer
from s3fs import S3FileSystem

from tasks.matching import Matcher
from tasks.registry import Version
from tasks.workspace import Workspace
from tests.prefect_server import Server
from tests.s3_server import S3Server
from tests.small_channel import add_version
from tests.youtube_server import YouTubeServer

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

LONGEST = (
    *("retraining", "kill", "train_flow", "runners", "training", "web", "object_storage"),
    *("processes", "indexing", "models", "deployment"),
)
"""Files that start first, so that the workers of pytest-xdist end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def prefect_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Prefect's persisted results."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session", autouse=True)
def prefect_harness(prefect_results: Path) -> Iterator[None]:
    """A throw-away Prefect server with an empty database."""
    with (
        prefect_test_harness(server_startup_timeout=240),
        temporary_settings(
            {
                PREFECT_LOCAL_STORAGE_PATH: prefect_results,
                PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
            }
        ),
    ):
        yield


@pytest.fixture(scope="session")
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


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def version(workspace: Workspace) -> Version:
    """A champion that can be used."""
    return add_version(workspace)


@pytest.fixture
def matcher(workspace: Workspace, version: Version) -> Matcher:
    return Matcher.of_version(workspace, version)


@pytest.fixture
def youtube(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> YouTubeServer:
    """A stand-in for YouTube on this machine, with its key in the environment."""
    server = YouTubeServer(httpserver)
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_API_URL", server.api_url)
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_FEED_URL", server.feed_url)
    monkeypatch.setenv("YOUTUBE_API_KEY", server.key)
    return server
