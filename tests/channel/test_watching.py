"""Watching channels: what is looked at, what it costs, and when a training starts."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_httpserver import HTTPServer

from tests.prefect_server import ROOT
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.news import ChannelsFileError, Memory, _mark, judge_news, read_channels
from thumbtune.channel.registry import Registry
from thumbtune.channel.sources.youtube.feed import FeedError, newest_videos
from thumbtune.data.thumbnails import Example
from thumbtune.flows.watch_flow import WatchError, watch
from thumbtune.parameters import WatchParameters
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import channel_place, open_index

pytestmark = pytest.mark.usefixtures("prefect_harness")

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OPTIONS = WatchParameters(min_new=3, max_age_days=30, retry_hours=24)


@pytest.mark.compatibility
def test_a_channel_takes_the_defaults_and_changes_single_fields(tmp_path: Path) -> None:
    file = tmp_path / "channels.yaml"
    file.write_text(
        "defaults:\n"
        "  model: clip\n"
        "  training: {epochs: 4, batch_size: 8}\n"
        "channels:\n"
        "  - channel: '@a'\n"
        "  - '@b'\n"
        "  - channel: '@c'\n"
        "    model: other\n"
        "    training: {epochs: 9}\n"
    )
    first, second, third = read_channels(file)
    assert (first.channel, first.model, first.training.epochs) == ("@a", "clip", 4)
    assert second == first.model_copy(update={"channel": "@b"})
    assert (third.model, third.training.epochs, third.training.batch_size) == ("other", 9, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as YAML: [Errno 2]"),
        ("channels: [", "cannot be read as YAML: while parsing"),
        ("- '@a'", "needs a list `channels:`, such as"),
        ("channels: '@a'", "needs a list `channels:`, such as"),
        ("channels: ['@a']\nchanels: []", "has chanels; it may have `channels` and `defaults`"),
        ("channels: ['@a', {channel: '@b', sed: 3}]", "channel 2: sed: Extra inputs are not"),
        ("channels: [{training: {epochs: 3}}]", "channel 1: channel is missing"),
        ("channels: ['@a', '@b', '@a']", "has @a twice"),
    ],
)
def test_a_wrong_file_of_channels_is_named(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "channels.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ChannelsFileError) as error:
        read_channels(file)
    assert str(file) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("new", "age_days", "train", "why"),
    [
        (0, 1, False, "nothing new"),
        (0, 90, False, "nothing new"),
        (2, 1, False, "2 new videos; 3 start a training"),
        (3, 1, True, "3 new videos"),
        (1, 30, True, "1 new videos, and the last training was 30 days ago"),
        (1, 30 - 1.4 / 24, True, "1 new videos, and the last training was 30 days ago"),
        (1, 30 - 1.6 / 24, False, "1 new videos; 3 start a training"),
        (60, None, True, "60 videos and no model yet"),
    ],
)
def test_training_starts_for_enough_new_videos_or_after_some_time(
    new: int, age_days: float | None, train: bool, why: str
) -> None:
    videos = [str(n) for n in range(new)]
    trained_at = None if age_days is None else NOW - timedelta(days=age_days)
    assert judge_news(videos, trained_at, Memory(), OPTIONS, NOW) == (train, why)


@pytest.mark.parametrize(
    ("hours_later", "train"),
    [
        (24, True),
        (24 - 1 / 3600, True),
        (24 - 0.2 / 3600, True),
        (23, True),
        (25, True),
        (22, False),
        (12, False),
    ],
)
def test_a_daily_watch_tries_again_the_next_day_also_a_moment_early_and_after_a_short_day(
    hours_later: float, train: bool
) -> None:
    videos = ["a", "b", "c"]
    memory = Memory(announced=_mark(videos), announced_at=NOW)
    now = NOW + timedelta(hours=hours_later)
    assert judge_news(videos, NOW, memory, OPTIONS, now)[0] == train


@pytest.mark.parametrize(("hours_later", "train"), [(0.95, True), (0.85, False)])
def test_of_a_short_time_a_tenth_may_lack(hours_later: float, train: bool) -> None:
    options = OPTIONS.model_copy(update={"max_age_days": 1 / 24, "retry_hours": 1.0})
    memory = Memory(announced=_mark(["a"]), announced_at=NOW)
    now = NOW + timedelta(hours=hours_later)
    for known in (memory, Memory()):
        assert judge_news(["a"], NOW, known, options, now)[0] == train


def test_a_feed_that_cannot_be_read_says_why(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/gone").respond_with_data("", 404)
    httpserver.expect_request("/html").respond_with_data("<html><p>no feed")
    httpserver.expect_request("/endless").respond_with_data("x" * 2_000_001)
    for path, why in (("gone", "HTTP 404"), ("html", "no XML"), ("endless", "larger than")):
        monkeypatch.setenv("THUMBTUNE_YOUTUBE_FEED_URL", httpserver.url_for(f"/{path}"))
        with pytest.raises(FeedError, match=why):
            newest_videos("UC" + "x" * 22)
    monkeypatch.setenv("THUMBTUNE_YOUTUBE_FEED_URL", "http://127.0.0.1:9/")
    with pytest.raises(FeedError, match=requests.ConnectionError.__name__):
        newest_videos("UC" + "x" * 22)


@pytest.fixture
def channel(youtube: YouTubeServer) -> list[dict[str, Any]]:
    videos = [make_video(2 * n) for n in range(50)]  # odd ones have no large thumbnail
    youtube.add_channel(videos)
    return videos


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    clip = str(save_tiny_clip(tmp_path / "clip"))
    channels = {
        "defaults": {
            "model": clip,
            "workspace": str(tmp_path / "workspace"),
            "negatives": {"text_model": clip},
            "evaluation": {"method": "holdout"},
            "training": {"recipe": "given", "epochs": 1},
        },
        "channels": ["@tester"],
    }
    file = tmp_path / "channels.yaml"
    file.write_text(json.dumps(channels))
    return {"channels": file, "min_new": 3, "start": "here"}


def registry_of(options: dict[str, Any]) -> Registry:
    root = Path(json.loads(options["channels"].read_text())["defaults"]["workspace"])
    return Registry(Workspace.open(root), "youtube", "@tester")


def test_a_watch_starts_without_loading_torch() -> None:
    """It does so every day for every channel, and mostly finds nothing."""
    code = "import sys, thumbtune.flows.watch_flow; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_watching_trains_once_for_new_videos_and_costs_nothing_else(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    registry = registry_of(options)
    assert watch(**options)[0].why == "50 videos and no model yet"
    assert [version.number for version in registry.versions()] == [1]

    units, feeds = youtube.units, youtube.feed_requests
    assert watch(**options)[0].why == "nothing new in the feed"
    assert (youtube.units, youtube.feed_requests) == (units, feeds + 1)

    channel.append(make_video(100, duration="PT20S"))  # a short
    assert watch(**options)[0].why == "nothing new"
    units = youtube.units
    assert watch(**options)[0].why == "nothing new in the feed"
    assert youtube.units == units

    downloads = youtube.image_requests.total()
    channel += [make_video(n) for n in (102, 104)]
    assert watch(**options)[0].why == "2 new videos; 3 start a training"
    channel.append(make_video(106))
    assert watch(**options)[0].why == "3 new videos"
    assert youtube.image_requests.total() == downloads + 3
    assert [len(version.seen) for version in registry.versions()] == [50, 53]
    assert len(registry.decisions()) == 2


def test_new_videos_join_the_champions_index_before_there_are_enough_to_train(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    registry = registry_of(options)
    registry.roll_back(1, "whether or not it was promoted")
    version = registry.versions()[0]
    workspace = registry.workspace
    downloads = youtube.image_requests.total()
    channel += [make_video(n) for n in (102, 104)]
    for _ in range(2):
        assert not watch(**options)[0].train
        index = open_index(workspace, channel_place(version.model.fingerprint, version))
        assert {entry.id for entry in index.entries} - set(version.seen) == {
            "video-00102",
            "video-00104",
        }
        assert len(index) == 52
        assert youtube.image_requests.total() == downloads + 2


def test_a_training_takes_the_list_that_its_watch_has_made(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    assert youtube.units == 3  # the channel, a page of its videos, what they are
    channel += [make_video(n) for n in (102, 104, 106)]
    watch(**options)
    assert youtube.units == 3 + 4  # two pages now
    assert len(registry_of(options).versions()[-1].seen) == 53


@pytest.mark.usefixtures("channel")
def test_the_same_videos_start_a_training_once(options: dict[str, Any]) -> None:
    options = {**options, "start": "event"}
    assert watch(**options)[0].train
    again = watch(**options)[0]
    assert not again.train
    assert again.why.startswith("training was started for these 50 videos; again at ")
    assert watch(**{**options, "retry_hours": 1e-6})[0].train


@pytest.mark.usefixtures("channel")
def test_a_version_that_a_killed_run_left_undecided_is_trained_for_again(
    options: dict[str, Any],
) -> None:
    watch(**options)
    registry = registry_of(options)
    shutil.rmtree(registry.workspace.root / registry.path / "decisions")
    again = watch(**{**options, "retry_hours": 1e-6})[0]
    assert again.why == "50 videos and no model yet"
    assert [decision.version for decision in registry.decisions()] == [1]
    assert [version.number for version in registry.versions()] == [1]


def test_new_videos_that_shorts_push_out_of_the_feed_are_not_forgotten(
    channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    channel += [make_video(n) for n in (100, 102)]
    assert watch(**options)[0].why == "2 new videos; 3 start a training"
    channel += [make_video(n, duration="PT20S") for n in range(110, 130)]
    assert watch(**options)[0].new == 2
    assert watch(**options)[0].new == 2
    assert watch(**{**options, "max_age_days": 1e-9})[0].train


def test_the_age_is_that_of_the_last_training_also_if_it_came_to_the_weights_of_a_version(
    channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    channels = json.loads(options["channels"].read_text())
    channels["defaults"]["training"]["learning_rate"] = 1e-12  # too little to change a weight
    options["channels"].write_text(json.dumps(channels))
    watch(**options)
    registry = registry_of(options)
    record = registry.workspace.root / registry.path / "versions" / "000001.json"
    long_ago = (datetime.now(UTC) - timedelta(days=31)).isoformat()
    record.write_text(json.dumps(json.loads(record.read_text()) | {"created": long_ago}))
    channel.append(make_video(100))
    assert watch(**options)[0].why == "1 new videos, and the last training was 31 days ago"
    assert len(registry.versions()) == 1
    channel.append(make_video(102))
    assert watch(**options)[0].why == "1 new videos; 3 start a training"


@pytest.mark.usefixtures("channel")
def test_a_feed_that_is_down_leads_to_the_api(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    youtube.has_feed = False
    channel.append(make_video(100))
    assert watch(**options)[0].why == "1 new videos; 3 start a training"


@pytest.mark.usefixtures("channel")
def test_one_channels_trouble_does_not_stop_the_others(options: dict[str, Any]) -> None:
    content = json.loads(options["channels"].read_text())
    content["channels"] = ["@nobody", "@tester"]
    options["channels"].write_text(json.dumps(content))
    with pytest.raises(WatchError, match="@nobody: channel: YouTube knows no channel '@nobody'"):
        watch(**options)
    assert len(registry_of(options).versions()) == 1


def test_damaged_memory_is_forgotten(workspace: Workspace) -> None:
    workspace.write("watch.json", b'{"announced": ')
    assert Memory.read(workspace, "watch.json") == Memory()


def test_a_premiere_is_noticed_once_it_is_a_video(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    premieres = [make_video(n, live="upcoming") for n in (102, 104, 106)]
    channel += premieres
    for _ in range(2):
        assert watch(**options)[0].why == "nothing new"
    for premiere in premieres:
        premiere["live"] = "none"
    assert watch(**options)[0].why == "3 new videos"
    units = youtube.units
    assert watch(**options)[0].why == "nothing new in the feed"
    assert youtube.units == units


STREAMS = {
    "upcoming": {"live": "upcoming", "duration": "P0D"},
    "live now": {"live": "live", "duration": "P0D"},
    "just over": {"duration": "P0D"},
}


@pytest.mark.parametrize("state", STREAMS)
def test_a_stream_that_others_push_out_of_the_feed_is_waited_for_until_it_is_a_video(
    channel: list[dict[str, Any]], options: dict[str, Any], state: str
) -> None:
    watch(**options)
    stream = make_video(102, **STREAMS[state])
    channel.append(stream)
    assert watch(**options)[0].why == "nothing new"
    channel += [make_video(n, duration="PT20S") for n in range(110, 130)]
    for _ in range(2):
        assert watch(**options)[0].why == "nothing new"
    stream |= {"live": "none", "duration": "PT1H"}
    assert watch(**options)[0].why == "1 new videos; 3 start a training"


def test_a_stream_that_is_gone_is_not_waited_for(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    channel.append(make_video(102, **STREAMS["upcoming"]))
    watch(**options)
    channel[-1]["deleted"] = True
    channel += [make_video(n, duration="PT20S") for n in range(110, 130)]
    assert watch(**options)[0].why == "nothing new"
    units = youtube.units
    assert watch(**options)[0].why == "nothing new in the feed"
    assert youtube.units == units


def test_a_lower_limit_for_shorts_makes_them_news(
    channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    channel += [make_video(n, duration="PT100S") for n in (102, 104, 106)]
    assert watch(**options)[0].why == "nothing new"
    channels = json.loads(options["channels"].read_text())
    channels["defaults"]["videos"] = {"min_duration_seconds": 60}
    options["channels"].write_text(json.dumps(channels))
    assert watch(**options)[0].why == "3 new videos"


def test_a_list_that_no_training_took_is_made_anew_by_the_next_watch(
    channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    watch(**options)
    options = {**options, "start": "event"}  # nothing hears it
    channel += [make_video(n) for n in (102, 104, 106)]
    assert watch(**options)[0].why == "3 new videos"
    channel += [make_video(n) for n in (108, 110)]
    assert watch(**options)[0].why == "5 new videos"


@pytest.fixture
def sample(tmp_path: Path) -> dict[str, Any]:
    """The bundled channel; two of its pictures are of no use."""
    entry = {
        "source": "sample",
        "model": "sample",
        "workspace": str(tmp_path / "workspace"),
        "negatives": {"text_model": "sample"},
        "evaluation": {"method": "holdout"},
        "training": {"recipe": "given", "epochs": 1},
    }
    file = tmp_path / "channels.yaml"
    file.write_text(json.dumps({"channels": [entry]}))
    return {"channels": file, "min_new": 1, "start": "here", "retry_hours": 0.001}


def test_videos_without_a_thumbnail_of_use_are_no_news(
    sample: dict[str, Any], tmp_path: Path
) -> None:
    registry = Registry(Workspace.open(tmp_path / "workspace"), "sample", None)
    assert watch(**sample)[0].train
    [version] = registry.versions()
    assert len(version.seen) == version.examples.rows + 2
    assert watch(**sample)[0].why == "nothing new"


def test_one_training_mends_a_record_that_leaves_them_out(
    sample: dict[str, Any], tmp_path: Path
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    registry = Registry(workspace, "sample", None)
    watch(**sample)
    record = workspace.root / registry.path / "versions" / "000001.json"
    old = json.loads(record.read_text())
    old["seen"] = [row.id for row in workspace.read_table(registry.versions()[0].examples, Example)]
    record.write_text(json.dumps(old))
    workspace.remove(f"{registry.path}/seen.json")
    assert watch(**sample)[0].why == "2 new videos"
    assert watch(**sample)[0].why == "nothing new"
    assert len(registry.versions()) == len(registry.decisions()) == 1
