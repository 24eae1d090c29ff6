"""A run that is killed at any moment, even with -9: the next one goes on, and comes to the same."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_httpserver import HTTPServer

from tests.mortal_runs import Ended, Moment, Outcome, Runs, options_of
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.store.storage import LEFTOVER

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("prefect_harness")]

SEED = random.randrange(10**6)
ANSWERS = 5  # of the API, for sixty videos: the channel, two pages of its list, two of videos
PAGES = 2  # of the list, after the channel; until all are marked as read, they are read anew

DATA = ["listing", "videos", "thumbnails", "looks", "alike", "splits", "assignment", "pairs"]
DATA += ["examples", "features", "training", "saving", "evaluation", "cards", "registry"]
DATA += ["promotion", "report", "index"]
RESULTS = ["fetch-videos", "fetch-thumbnails", "find-near-duplicates", "split-videos"]
RESULTS += [
    "mine-negatives",
    "collect-examples",
    "encode-features",
    "plan-run",
    "train",
    "evaluate",
    "write-cards",
    "report",
]
MOMENTS = {
    "in each step": ["workspace", "identity", "lock", *DATA],
    "before Prefect keeps each result": [f"result of {task}" for task in RESULTS],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with Runs(tmp_path_factory.mktemp("runs")) as runs:
        yield runs


@pytest.fixture
def channel(youtube: YouTubeServer) -> YouTubeServer:
    youtube.add_channel([make_video(n) for n in range(60)])
    return youtube


class Undisturbed(NamedTuple):
    outcome: Outcome
    acts: Counter[str]
    """Of each step that a run begins with: looking the channel up is no part of the listing, and
    what was measured for the plan is no part of the evaluation; both are stored by then."""


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed") / "workspace"
    with pytest.MonkeyPatch.context() as patch, HTTPServer() as http:
        server = YouTubeServer(http)
        server.add_channel([make_video(n) for n in range(60)])
        patch.setenv("THUMBTUNE_YOUTUBE_API_URL", server.api_url)
        patch.setenv("YOUTUBE_API_KEY", server.key)
        ended = runs.run(options_of(root))
    assert ended.run, ended.traceback
    acts = Counter(ended.steps)
    for step, after in (("listing", "lock"), ("evaluation", "training")):
        acts[step] -= ended.steps[: ended.steps.index(after)].count(step)
    return Undisturbed(Outcome.of(root), acts)


class Asked(NamedTuple):
    """What a run may ask: nothing that was stored before."""

    answers: int
    again: int
    """Pages that were stored and are asked for again: a list is read in one go."""
    pictures: set[str]

    @classmethod
    def so_far(cls, root: Path) -> "Asked":
        index = [json.loads(file.read_bytes()) for file in root.glob("thumbnails/urls/*.json")]
        answers = len(list(root.glob("youtube/*.json")))
        lists = [json.loads(file.read_bytes()) for file in root.glob("youtube-unfinished/*.json")]
        unread = any(not each["has_pages"] for each in lists)
        again = min(max(answers - 1, 0), PAGES) if unread else 0
        return cls(answers, again, {entry["url"].partition("/vi/")[2] for entry in index})


def run_and_watch(
    runs: Runs, youtube: YouTubeServer, workspace: Path, dies: Moment | None = None
) -> Ended:
    """Run once, and see that nothing is asked for that was stored, but the pages of a list that was
    not read to its end."""
    stored = Asked.so_far(workspace)
    youtube.requests.clear()
    youtube.image_requests.clear()
    ended = runs.run(options_of(workspace), dies)
    assert len(youtube.requests) <= ANSWERS - stored.answers + stored.again
    asked = {path.removeprefix("/vi/") for path in youtube.image_requests}
    assert not asked & stored.pictures
    assert ended.killed or ended.run, ended.traceback
    return ended


def test_a_run_that_is_killed_before_any_act_of_its_list_asks_again_for_its_pages_at_most(
    runs: Runs, channel: YouTubeServer, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for number in range(1, undisturbed.acts["listing"] + 1):
        workspace = tmp_path / str(number)
        dies = Moment(step="listing", number=number)
        assert run_and_watch(runs, channel, workspace, dies).killed
        until_listed = Moment(step="videos", number=1)
        assert run_and_watch(runs, channel, workspace, until_listed).killed


@pytest.mark.parametrize("where", MOMENTS)
def test_a_run_that_is_killed_again_and_again_comes_to_what_an_undisturbed_run_does(
    runs: Runs, channel: YouTubeServer, undisturbed: Undisturbed, tmp_path: Path, where: str
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    workspace = tmp_path / "workspace"
    for step in MOMENTS[where]:
        number = rng.randint(1, undisturbed.acts[step])
        ended = run_and_watch(runs, channel, workspace, Moment(step=step, number=number))
        assert ended.killed, f"{step} {number} was not reached"
        assert ended.steps[-1] == step
    assert run_and_watch(runs, channel, workspace).run
    assert Outcome.of(workspace) == undisturbed.outcome
    two_days_ago = time.time() - 2 * 86400
    for path in workspace.rglob(".*"):
        os.utime(path, (two_days_ago, two_days_ago))
    assert run_and_watch(runs, channel, workspace).run
    assert not [path for path in workspace.rglob(".*") if LEFTOVER.fullmatch(path.name)]


def test_so_does_one_that_is_killed_at_any_time(
    runs: Runs, channel: YouTubeServer, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    workspace = tmp_path / "workspace"
    for _ in range(8):
        run_and_watch(runs, channel, workspace, Moment(seconds=rng.uniform(0.3, 3)))
    assert run_and_watch(runs, channel, workspace).run
    assert Outcome.of(workspace) == undisturbed.outcome
