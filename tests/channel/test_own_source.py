"""A source of another package, made by the steps of CONTRIBUTING.md to the letter."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from tests.documentation import ROOT
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video

RECIPE = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a source")[2]

LIST = """
import json, sys
from pathlib import Path
from thumbtune.channel.videos import list_videos
from thumbtune.errors import SourceError
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace
answers = []
for channel in sys.argv[2:]:
    asked = TrainParameters(source="ours", channel=channel)
    workspace = Workspace.open(Path(sys.argv[1]))
    try:
        found = list_videos(workspace, asked.source, asked.channel, asked.videos)
        answers.append(found.model_dump(include={"dropped", "videos"}))
    except SourceError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def block(language: str) -> str:
    """The first code of a language in the recipe, without its indentation."""
    found = re.search(rf"^   ```{language}\n(.*?)^   ```$", RECIPE, re.DOTALL | re.MULTILINE)
    assert found
    return re.sub("^   ", "", found[1], flags=re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a Python in which the recipe's package is installed."""
    place = tmp_path / "installed"
    (place / "ours-1.0.dist-info").mkdir(parents=True)
    (place / "our_videos.py").write_text(block("python"))
    group, name, value = re.findall(r'"([^"]+)"|^(\w+) =', block("toml"), re.MULTILINE)
    entry = f"[{group[0]}]\n{name[1]} = {value[0]}\n"
    (place / "ours-1.0.dist-info" / "entry_points.txt").write_text(entry)
    (place / "ours-1.0.dist-info" / "METADATA").write_text("Name: ours\nVersion: 1.0\n")
    return {**os.environ, "PYTHONPATH": str(place)}


def row(number: int, picture: str = "https://i.ytimg.com/vi/x/hqdefault.jpg") -> dict[str, str]:
    return {"id": f"video-{number}", "name": f"Title {number}", "picture": picture}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_lists_videos_and_counts_what_lacks_something(
    environment: dict[str, str], tmp_path: Path
) -> None:
    export = tmp_path / "export.json"
    export.write_text(json.dumps([row(1), {**row(2), "name": ""}, row(3)]))
    asked = [str(tmp_path / "workspace"), str(export), str(tmp_path / "nothing.json")]
    done = run(environment, "-c", LIST, *asked)
    assert done.returncode == 0, done.stderr
    found, problem = json.loads(done.stdout)
    assert [video["title"] for video in found["videos"]] == ["Title 1", "Title 3"]
    assert found["dropped"] == {"no title": 1}
    assert "nothing.json cannot be read" in problem
    assert problem.endswith("Export again.")


@pytest.mark.slow
def test_the_command_line_offers_it_and_says_what_its_channel_is(
    environment: dict[str, str],
) -> None:
    done = run(environment, "flows/train_flow.py", "--help")
    assert ",sample,ours}" in done.stdout
    assert ",sample}" in run(dict(os.environ), "flows/train_flow.py", "--help").stdout
    done = run(environment, "flows/train_flow.py", "--source", "ours")
    assert done.returncode == 2
    assert "for ours the path of an export" in done.stderr


@pytest.mark.slow
def test_one_that_cannot_be_loaded_says_so_and_leaves_the_others_alone(
    environment: dict[str, str],
) -> None:
    place = Path(environment["PYTHONPATH"]) / "our_videos.py"
    place.write_text("import a_package_that_is_not_there")
    done = run(environment, "flows/train_flow.py", "--source", "ours", "--channel", "x")
    assert done.returncode == 2
    assert "source: 'ours' cannot be loaded from our_videos:OurVideos" in done.stderr
    assert "Traceback" not in done.stderr
    code = "from thumbtune.parameters import TrainParameters as P; P(channel='@x'); P(channel=None)"
    done = run(environment, "-c", code)
    assert "for youtube a channel id, @handle or URL; for folder a path; for hub" in done.stderr


@pytest.mark.usefixtures("prefect_harness")
def test_a_model_is_trained_on_it_and_used(
    environment: dict[str, str], youtube: YouTubeServer, tmp_path: Path
) -> None:
    youtube.add_channel(videos := [make_video(number) for number in range(60)])
    pictures = [f"{youtube.base}/vi/{video['id']}/high.jpg" for video in videos]
    export = tmp_path / "export.json"
    export.write_text(json.dumps([row(n, picture) for n, picture in enumerate(pictures)]))
    clip = str(save_tiny_clip(tmp_path / "clip"))
    api = get_current_settings().api.url
    assert api
    workspace = str(tmp_path / "workspace")
    options = ["--source", "ours", "--channel", str(export), "--workspace", workspace]
    options += ["--model", clip, "--negatives.text_model", clip, "--training.recipe", "given"]
    options += ["--evaluation.method", "holdout", "--training.epochs", "1"]
    done = run(environment | {"PREFECT_API_URL": api}, "flows/train_flow.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    use = ["-m", "thumbtune.app.cli", "search", "Title 3", "--workspace", workspace, "--json"]
    found = run(environment, *use, "--source", "ours", "--channel", str(export))
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)
