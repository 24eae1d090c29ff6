"""No key, token or webhook address is in anything that a run leaves, whatever goes wrong."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.settings import get_current_settings
from pytest_httpserver import HTTPServer
from werkzeug import Response

from tests.channel.test_faults import reset, with_body
from tests.hub_server import READ_TOKEN, WRITE_TOKEN, HubServer
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, error_body, make_video

pytestmark = pytest.mark.usefixtures("prefect_harness")

ROOT = Path(__file__).parents[2]
KEY = "AIza-marked-key-9f31c07be5"
WRONG_KEY = "AIza-marked-wrong-key-27d80"
WRONG_TOKEN = "hf_markedWrongToken5e17"
HOOK = "marked-hook-4470ac"
MARKS = (KEY, WRONG_KEY, WRITE_TOKEN, READ_TOKEN, WRONG_TOKEN, HOOK)

RUNS = """
import json, os
from thumbtune.flows.train_flow import main
for environment, arguments in json.loads(os.environ["RUNS"]):
    os.environ.update(environment)
    print("exit code", main(arguments), flush=True)
"""


class Left(NamedTuple):
    """What the runs left behind."""

    output: str
    files: list[Path]
    hub: HubServer
    youtube: YouTubeServer


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, prefect_results: Path) -> Left:
    """Six runs of the whole flow in a process of their own: one that ends well, five that fail."""
    folder = tmp_path_factory.mktemp("secrets")
    clip = str(save_tiny_clip(folder / "clip"))
    with HTTPServer() as http, HubServer() as hub:
        youtube = YouTubeServer(http)
        youtube.key = KEY
        youtube.add_channel([make_video(2 * n) for n in range(60)])
        http.expect_request(f"/{HOOK}").respond_with_response(Response("", 500))
        echo = with_body(error_body(403, "forbidden").replace("stand-in", f"refused {KEY}"), 403)
        youtube.faults_of["playlistItems"].extend([None] * 3 + [echo] + [reset] * 5)
        arguments = (
            f"--channel @tester --model {clip} --negatives.text_model {clip} --training.epochs 1 "
            f"--training.recipe given --evaluation.method holdout "
            f"--workspace {folder / 'workspace'} --videos.expiration_hours 0 "
            "--publish.model_repo owner/clip --publish.dataset_repo owner/pairs"
        ).split()
        elsewhere = [*arguments, "--publish.model_repo", "owner/other"]
        runs = [
            ({"YOUTUBE_API_KEY": KEY}, arguments),
            ({"YOUTUBE_API_KEY": WRONG_KEY}, arguments),
            ({"YOUTUBE_API_KEY": KEY}, arguments),  # refused, with the key in the answer
            ({}, arguments),  # the connection is reset
            ({"HF_TOKEN": WRONG_TOKEN}, elsewhere),
            ({"HF_TOKEN": READ_TOKEN, "THUMBTUNE_WEBHOOK_URL": f"{HOOK}://x"}, elsewhere),
        ]
        database = get_current_settings().server.database.connection_url
        api = get_current_settings().api.url
        assert database
        assert api
        environment = hub.environment(
            folder / "home",
            RUNS=json.dumps(runs),
            HF_TOKEN=WRITE_TOKEN,
            PREFECT_API_URL=api,
            PREFECT_HOME=str(folder / "prefect"),
            PREFECT_LOGGING_LEVEL="DEBUG",
            THUMBTUNE_YOUTUBE_API_URL=youtube.api_url,
            THUMBTUNE_WEBHOOK_URL=http.url_for(f"/{HOOK}"),
        )
        done = subprocess.run(
            [sys.executable, "-c", RUNS],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=500,
        )
        kept = Path(database.get_secret_value().partition(":///")[2]).parent
        roots = (folder, kept, prefect_results)
        files = [file for root in roots for file in root.rglob("*") if file.is_file()]
        return Left(done.stdout + done.stderr, files, hub, youtube)


def shapes(mark: str) -> list[bytes]:
    """How a secret could be written."""
    return [mark.encode(), base64.b64encode(mark.encode())[:-4], mark[::-1].encode()]


def test_the_runs_used_the_secrets_and_ended_as_they_should(left: Left) -> None:
    codes = [line for line in left.output.splitlines() if line.startswith("exit code")]
    assert codes == [f"exit code {code}" for code in (0, 1, 1, 1, 1, 1)]
    sent = {request.headers["X-Goog-Api-Key"] for request in left.youtube.requests}
    assert sent == {KEY, WRONG_KEY}
    assert ("model", "owner/clip") in left.hub.repositories
    for said in ("the key was refused", "no answer (ConnectionError)", "the hub refused to write"):
        assert f"thumbtune: {'' if 'hub' in said else 'YouTube playlistItems: '}" in left.output
        assert said in left.output
    assert "The webhook" in left.output


@pytest.mark.parametrize("mark", MARKS)
def test_no_output_holds_a_secret(left: Left, mark: str) -> None:
    assert not [shape for shape in shapes(mark) if shape in left.output.encode()]


@pytest.mark.parametrize("mark", MARKS)
def test_no_file_or_database_holds_a_secret(left: Left, mark: str) -> None:
    for kind in (".jsonl", ".safetensors", ".html", ".db", ".json"):
        assert any(file.suffix == kind for file in left.files), kind
    holding = [
        file for file in left.files if any(shape in file.read_bytes() for shape in shapes(mark))
    ]
    assert not holding


def test_what_was_searched_holds_what_was_done(left: Left) -> None:
    """The search would find a secret: it finds the channel in the database and the workspace."""
    holding = {file.suffix for file in left.files if b"@tester" in file.read_bytes()}
    assert {".db", ".json"} <= holding


@pytest.mark.parametrize("mark", MARKS)
def test_nothing_that_was_published_holds_a_secret(left: Left, mark: str) -> None:
    for repository in left.hub.repositories.values():
        for path, blob in repository.files.items():
            assert not any(shape in blob.data for shape in shapes(mark)), path
