"""Re-training that runs by itself: server, worker, watch, trigger, promotion."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.prefect_server import ROOT, Server, kill, wait_until
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.registry import Registry
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.whole


class House:
    """A channel on the stand-in, its workspace, and a worker that reaches both."""

    def __init__(
        self, server: Server, youtube: YouTubeServer, http: HTTPServer, folder: Path
    ) -> None:
        self.server, self.youtube = server, youtube
        self.videos = [make_video(2 * n) for n in range(60)]
        youtube.add_channel(self.videos)
        self.told: list[dict[str, Any]] = []
        http.expect_request("/webhook").respond_with_handler(self._hear)
        self.environment = {
            "THUMBTUNE_YOUTUBE_API_URL": youtube.api_url,
            "THUMBTUNE_YOUTUBE_FEED_URL": youtube.feed_url,
            "THUMBTUNE_WEBHOOK_URL": http.url_for("/webhook"),
            "YOUTUBE_API_KEY": youtube.key,
            "THUMBTUNE_WEB_URL": "https://thumbtune.example/",
        }
        clip = str(save_tiny_clip(folder / "clip"))
        self.parameters: dict[str, Any] = {
            "channel": "@tester",
            "model": clip,
            "workspace": str(folder / "workspace"),
            "negatives": {"text_model": clip},
            "evaluation": {"method": "holdout"},
            "training": {"recipe": "given", "epochs": 1, "learning_rate": 0.01},
        }
        self.channels = folder / "channels.yaml"
        self.channels.write_text(json.dumps({"channels": [self.parameters]}))
        self.workspace = Workspace.open(folder / "workspace")
        self.registry = Registry(self.workspace, "youtube", "@tester")

    def _hear(self, request: Request) -> Response:
        self.told.append(request.get_json())
        return Response()

    @contextmanager
    def worker(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        with self.server.worker(*options, **self.environment) as process:
            yield process

    @contextmanager
    def watched_every(self, seconds: int) -> Iterator[None]:
        """The deployment `watch` of prefect.yaml once more, on a short interval."""
        project = yaml.safe_load((ROOT / "prefect.yaml").read_text())
        [watch] = [each for each in project["deployments"] if each["name"] == "watch"]
        watch["name"] = "often"
        watch["schedules"] = [{"interval": seconds}]
        # of a lower priority than the queue of `train`: one worker takes the training first
        watch["work_pool"] = {**watch["work_pool"], "work_queue_name": "watches"}
        watch["parameters"] = {"channels": str(self.channels), "min_new": 3}
        file = self.channels.with_name("prefect.yaml")
        file.write_text(yaml.safe_dump({"deployments": [watch]}))
        self.server.prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(file))
        try:
            yield
        finally:
            self.server.prefect("--no-prompt", "deployment", "delete", "watch/often")

    def features(self) -> set[Path]:
        return set((self.workspace.root / "features").glob("*/*.safetensors"))


@pytest.fixture
def house(server: Server, youtube: YouTubeServer, httpserver: HTTPServer, tmp_path: Path) -> House:
    return House(server, youtube, httpserver, tmp_path)


def summary_of(server: Server, run: dict[str, Any]) -> str:
    """The Markdown of a run's first artifact."""
    posted = [each for each in server.find("artifacts") if each["flow_run_id"] == run["id"]]
    [summary] = [each for each in posted if (each["key"] or "").startswith("summary-")]
    return str(summary["data"])


def test_new_videos_become_a_promoted_model_by_themselves_and_nothing_new_starts_nothing(
    house: House,
) -> None:
    server, before = house.server, len(house.server.runs("train"))

    def watch() -> None:
        """Wait for a watch that begins from now on; its schedule starts it."""
        now = datetime.now(UTC).isoformat()

        def watched() -> bool:
            ended = [run for run in server.runs("watch") if run["state_type"] == "COMPLETED"]
            return any(run["start_time"] > now and run["auto_scheduled"] for run in ended)

        wait_until(watched, tell=lambda: str([run["state"] for run in server.runs("watch")]))

    # one run at a time, for a watch in the middle of a training may fetch the same new thumbnails
    with house.watched_every(20), house.worker("--limit", "1"):
        watch()
        run = server.wait_for_runs("train", before + 1)[-1]
        assert run["parameters"]["channel"] == "@tester"
        assert run["parameters"]["training"]["learning_rate"] == 0.01
        assert run["parameters"]["publish"]["model_repo"] is None
        assert {"channel:@tester", "source:youtube", "trigger:event"} <= set(run["tags"])
        assert "](https://thumbtune.example)" in summary_of(server, run)
        watches = [run for run in server.runs("watch") if run["auto_scheduled"]]
        assert all("trigger:schedule" in run["tags"] for run in watches if run["start_time"])
        assert [v.number for v in house.registry.versions()] == [1]

        house.videos += [make_video(2 * n) for n in (60, 61, 62)]
        asked = house.youtube.image_requests.copy()
        watch()
        server.wait_for_runs("train", before + 2)
        first, second = house.registry.versions()
        assert set(second.seen) - set(first.seen) == {f"video-{2 * n:05}" for n in (60, 61, 62)}
        new = house.youtube.image_requests - asked
        assert new == {f"/vi/video-{2 * n:05}/maxres.jpg": 1 for n in (60, 61, 62)}
        assert not set(second.learned_from) & (set(first.seen) - set(first.learned_from))

        watch()  # nothing is new
        watch()
        assert len(server.runs("train")) == before + 2

    decisions = house.registry.decisions()
    assert [decision.version for decision in decisions] == [1, 2]
    champion = house.registry.champion()
    assert champion is not None
    assert champion.number == decisions[-1].champion
    assert champion.model.is_there(house.workspace)
    assert [message["version"] for message in house.told] == [1, 2]
    assert {message["event"] for message in house.told} <= {"model.promoted", "model.kept"}
    assert "against the untouched's" in house.told[0]["text"]


def test_a_run_that_is_killed_in_training_blocks_nobody_and_nothing_is_done_twice(
    house: House,
) -> None:
    before = sum(run["state_type"] == "COMPLETED" for run in house.server.runs("train"))
    long = {
        **house.parameters,
        "training": {"recipe": "given", "epochs": 1000, "learning_rate": 0.01},
    }
    with house.worker() as worker:
        house.server.run("train/train", **long)
        wait_until(lambda: len(house.features()) == 2)
        kill(worker)
    features, asked = house.features(), house.youtube.image_requests.copy()
    assert house.registry.versions() == []
    with house.worker():
        house.server.run("train/train", **house.parameters)
        house.server.wait_for_runs("train", before + 1)
    assert house.features() == features
    assert house.youtube.image_requests == asked
    assert [v.number for v in house.registry.versions()] == [1]


def test_two_runs_at_once_on_one_channel_leave_one_whole_model(house: House) -> None:
    before = sum(run["state_type"] == "COMPLETED" for run in house.server.runs("train"))
    for _ in range(2):
        house.server.run("train/train", **house.parameters)
    with house.worker():
        house.server.wait_for_runs("train", before + 2)
    assert [version.number for version in house.registry.versions()] == [1]
    assert [decision.number for decision in house.registry.decisions()] == [1]
    assert set(house.youtube.image_requests.values()) == {1}
    assert len(list((house.workspace.root / "models").glob("*/model"))) == 1
    hidden = [path for path in (house.workspace.root / "models").rglob(".*") if path.is_dir()]
    assert hidden == []


def test_a_run_that_fails_is_told(house: House) -> None:
    broken = {**house.parameters, "channel": "@nobody"}
    with house.worker():
        house.server.run("train/train", **broken)
        wait_until(lambda: bool(house.told))
    [message] = house.told
    assert message["event"] == "train.failed"
    assert "train of @nobody failed" in message["text"]
    assert "YouTube knows no channel '@nobody'" in message["text"]
