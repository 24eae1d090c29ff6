"""compose.yaml's containers run deploy/service.sh, by which tests/prefect_server.py starts all."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer

from tests.prefect_server import ROOT, SERVICE, free_port

STAND_INS = {
    "THUMBTUNE_YOUTUBE_API_URL",
    "THUMBTUNE_YOUTUBE_FEED_URL",
    "THUMBTUNE_YOUTUBE_BACKOFF_SECONDS",
}
"""What only tests set."""
OF_THE_PAGE = {"THUMBTUNE_WEB_PASSWORD"}
"""What `thumbtune web` reads, which no service runs."""


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [SERVICE, *arguments],
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    """Ours of compose.yaml."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return {name: service for name, service in services.items() if service["image"] == "thumbtune"}


@pytest.mark.parametrize("arguments", [[], ["sever"]])
def test_no_service_or_an_unknown_one_is_told_which_there_are(arguments: list[str]) -> None:
    done = serve(*arguments)
    assert done.returncode == 2
    assert "Give server, healthy, deploy or worker." in done.stderr


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_a_server_is_healthy_that_says_so(
    httpserver: HTTPServer, status: int, is_healthy: bool
) -> None:
    httpserver.expect_request("/api/health").respond_with_data("true", status)
    done = serve("healthy", PREFECT_SERVER_API_PORT=str(httpserver.port))
    assert (done.returncode == 0) == is_healthy
    assert len(httpserver.log) == 1


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    assert serve("healthy", PREFECT_SERVER_API_PORT=str(free_port())).returncode != 0


def test_containers_run_nothing_else(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        script, what, *_ = service["command"].split()
        assert (script, what) == ("deploy/service.sh", name)
    assert services["server"]["healthcheck"]["test"] == ["CMD", "deploy/service.sh", "healthy"]


def test_the_worker_is_given_every_setting_that_it_reads_or_that_the_docs_name(
    services: dict[str, dict[str, Any]],
) -> None:
    code = [
        file for folder in ("flows", "tasks", "thumbtune") for file in (ROOT / folder).rglob("*.py")
    ]
    docs = [ROOT / "SECURITY.md", *(ROOT / "docs" / f"{x}.md" for x in ("operations", "scaling"))]
    text = "\n".join(file.read_text() for file in [*code, *docs])
    named = set(re.findall(r"\b(?:(?:THUMBTUNE|AWS)_[A-Z0-9_]+|HF_TOKEN|YOUTUBE_API_KEY)\b", text))
    named.add("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK")
    assert len(named) > 12
    missing = named - STAND_INS - OF_THE_PAGE - set(services["worker"]["environment"])
    assert not missing


def test_no_lone_file_is_mounted(services: dict[str, dict[str, Any]]) -> None:
    volumes = [each for service in services.values() for each in service.get("volumes", [])]
    mounted = [volume.split(":")[0] for volume in volumes if volume.startswith(".")]
    assert mounted
    assert not [path for path in mounted if Path(path).suffix or (ROOT / path).is_file()]
