"""A workspace of an earlier version opens, and what it keeps is used."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.old_workspace import FIXTURES, VIDEOS, options, serve_channel
from tests.youtube_server import YouTubeServer
from thumbtune.app.cli import app
from thumbtune.channel.registry import Registry
from thumbtune.flows.train_flow import train
from thumbtune.flows.training import TrainRun
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.fixture(params=sorted(FIXTURES.glob("workspace-*.tar.gz")), ids=lambda file: file.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of an old workspace."""
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "workspace"


def asked(old: Path, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = CliRunner().invoke(app, [*arguments, f"--workspace={old}", "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


def test_its_champion_answers_from_its_index(old: Path) -> None:
    stored = contents(old / "indexes")
    [version] = asked(old, "models")
    assert (version["version"], version["champion"], version["weights"]) == (1, True, True)
    assert len(asked(old, "search", "Title number 3", "--top=5")) == 5
    picture = next((old / "thumbnails").rglob("*.jpg"))
    titles = ("Title number 1", "Something else")
    answer = asked(old, "match", str(picture), *titles)
    assert {fit["title"] for fit in answer["titles"]} == set(titles)
    assert stored
    assert contents(old / "indexes") == stored


def test_a_new_training_goes_on_from_it(old: Path, youtube: YouTubeServer) -> None:
    serve_channel(youtube, VIDEOS + 2)
    features = contents(old / "features")
    registry = Registry(Workspace.find(str(old)), "youtube", "@tester")
    [first] = registry.versions()
    splits = sorted(path.read_bytes() for path in (old / registry.path / "splits").iterdir())
    asked = options(old.parent)
    asked["training"]["recipe"] = (
        "given"  # pictures of noise: a choice may keep the untouched model
    )
    run: TrainRun = train(**asked, videos={"expiration_hours": 0})
    assert [version.number for version in registry.versions()] == [1, 2]
    assert registry.versions()[0] == first
    told = "the champion, which has learned from all but 4 of the 26 videos"
    assert told in registry.decisions()[-1].why
    assert run.verdict
    new = contents(old / "features").keys() - features.keys()
    assert len(new) == 2  # of the two videos, their pictures and their titles
    kept = {path.read_bytes() for path in (old / registry.path / "splits").iterdir()}
    assert kept.issuperset(splits)
