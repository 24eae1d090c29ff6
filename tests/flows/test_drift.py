"""A champion that no longer fits its channel: a server, an automation on the event, a webhook."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.prefect_server import ROOT, Server, wait_until
from thumbtune.sample import CHANNEL

pytestmark = pytest.mark.whole


def write_sample_with_later_titles_mixed_up(folder: Path, videos: int, later: int) -> None:
    """The first videos of the bundled channel, of which the last ones have each other's titles.

    Of the last forty three do not count: one is short, one has no picture, and one has the title of
    an earlier one.
    """
    shutil.copytree(CHANNEL / "images", folder / "images", dirs_exist_ok=True)
    rows = json.loads((CHANNEL / "manifest.json").read_text())[: videos + later]
    titles = [row["title"] for row in rows[videos:]]
    for place, row in enumerate(rows[videos:]):
        row["title"] = titles[(place + later // 2) % later]
    (folder / "manifest.json").write_text(json.dumps(rows))


@pytest.fixture
def automation(server: Server) -> Iterator[str]:
    """One on `thumbtune.model.drift`, made as the Prefect UI makes it."""
    trigger = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0}
    asked = {
        "name": "a champion drifts",
        "trigger": {**trigger, "expect": ["thumbtune.model.drift"]},
        "actions": [{"type": "do-nothing"}],
    }
    made = requests.post(f"{server.api}/automations/", json=asked, timeout=60)
    assert made.ok, made.text
    yield made.json()["id"]
    requests.delete(f"{server.api}/automations/{made.json()['id']}", timeout=60)


def events(server: Server, name: str) -> list[dict[str, Any]]:
    asked = {"filter": {"event": {"name": [name]}}}
    return requests.post(f"{server.api}/events/filter", json=asked, timeout=60).json()["events"]


def test_a_champion_that_no_longer_fits_sets_off_an_automation_and_posts(
    server: Server, automation: str, httpserver: HTTPServer, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []

    def hear(request: Request) -> Response:
        told.append(request.get_json())
        return Response()

    httpserver.expect_request("/webhook").respond_with_handler(hear)
    channel = tmp_path / "channel"
    channel.mkdir()

    def train() -> None:
        command = [sys.executable, str(ROOT / "flows" / "train_flow.py"), "--source", "folder"]
        command += ["--channel", str(channel), "--model", "sample", "--negatives.method", "random"]
        command += ["--workspace", str(tmp_path / "workspace")]
        hook = {"THUMBTUNE_WEBHOOK_URL": httpserver.url_for("/webhook")}
        environment = {**server.environment, **hook}
        subprocess.run(command, env=environment, check=True, timeout=540)

    write_sample_with_later_titles_mixed_up(channel, 80, 0)
    train()
    assert [message["event"] for message in told] == ["model.promoted"]
    assert not events(server, "thumbtune.model.drift")

    write_sample_with_later_titles_mixed_up(channel, 80, 40)
    train()

    def arrived() -> bool:
        fired = events(server, "prefect.automation.triggered")
        return any(automation in event["resource"]["prefect.resource.id"] for event in fired)

    wait_until(arrived, tell=lambda: str(events(server, "thumbtune.model.drift")))
    [drift] = events(server, "thumbtune.model.drift")
    assert drift["payload"]["version"] == 1
    assert "37 later videos" in drift["payload"]["why"]
    posted = next(message for message in told if message["event"] == "model.drift")
    assert posted["version"] == 1
    assert drift["payload"]["why"] in posted["text"]
