"""`thumbtune serve`, as a program asks it: over HTTP, with the JSON of the command line."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import uvicorn
from typer.testing import CliRunner

from tests.data.test_thumbnails import encoded, picture
from tests.prefect_server import free_port, wait_until
from thumbtune.app.cli import app
from thumbtune.app.service import make_service
from thumbtune.channel.registry import Registry, Version
from thumbtune.data.thumbnails import MAX_BYTES
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.slow

TITLES = ["A boat at night", "Ten castles", "Ünï <b>code</b>"]


@contextmanager
def served(registry: Registry, waiting: int = 16) -> Iterator[str]:
    port = free_port()
    service = make_service(registry, ["127.0.0.1", "localhost"], waiting)
    server = uvicorn.Server(uvicorn.Config(service, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def registry(workspace: Workspace, version: Version) -> Registry:
    return Registry(workspace, "youtube", "@tester")


@pytest.fixture
def address(registry: Registry) -> Iterator[str]:
    with served(registry) as address:
        yield address


def match(address: str, data: bytes, **asked: object) -> requests.Response:
    params = {"title": TITLES, **asked}
    return requests.post(f"{address}/match", params=params, data=data, timeout=60)


def by_command(workspace: Workspace, *words: str) -> object:
    done = CliRunner().invoke(app, [*words, f"--workspace={workspace.root}", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_it_answers_as_the_command_line_does(
    address: str, workspace: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(encoded(picture()))
    for flags, asked in (([], {}), (["--untouched"], {"untouched": "true"})):
        told = match(address, file.read_bytes(), **asked)
        assert told.status_code == 200, told.text
        assert told.json() == by_command(workspace, "match", str(file), *TITLES, *flags)
    told = requests.get(f"{address}/search", {"words": "a castle", "top": 3}, timeout=60)
    hits = told.json()
    assert hits == by_command(workspace, "search", "a castle", "--top", "3")
    like = requests.post(f"{address}/search", data=file.read_bytes(), params={"top": 1}, timeout=60)
    assert like.json() == by_command(workspace, "search", "--image", str(file), "--top", "1")


def test_its_health_tells_the_channel_and_the_version_in_use(
    address: str, registry: Registry
) -> None:
    told = requests.get(f"{address}/health", timeout=60).json()
    assert (told["channel"], told["champion"]) == (registry.name, 1)


def test_its_description_is_of_the_same_models_and_asks_no_other_host(address: str) -> None:
    told = requests.get(f"{address}/openapi.json", timeout=60).json()
    assert set(told["paths"]) == {"/health", "/match", "/search"}
    assert {"cosine", "percentile", "rank"} <= set(
        told["components"]["schemas"]["Ranked"]["properties"]
    )
    assert requests.get(f"{address}/docs", timeout=60).status_code == 404  # it would load scripts


@pytest.mark.parametrize(
    ("data", "asked", "status", "words"),
    [
        (b"no picture", {}, 422, "Give a JPEG, PNG, WebP or GIF"),
        (b"", {}, 422, "Give a JPEG, PNG, WebP or GIF"),
        (b"x", {"title": ["  "]}, 422, ""),
        (b"x", {"title": []}, 422, "title"),
        (b"x", {"title": ["a" * 201]}, 422, "Shorten"),
        (b"x", {"title": [str(n) for n in range(51)]}, 422, "50"),
        (b"x" * (MAX_BYTES + 1), {}, 413, "larger than 20 MB"),
    ],
)
def test_what_it_cannot_answer_is_told_in_words(
    address: str, data: bytes, asked: dict[str, object], status: int, words: str
) -> None:
    told = match(address, data, **asked)
    assert told.status_code == status
    assert words in json.dumps(told.json())


def test_another_sites_name_is_refused(address: str) -> None:
    told = requests.get(f"{address}/health", headers={"Host": "evil.example"}, timeout=60)
    assert told.status_code == 400


def test_without_a_champion_it_says_so(workspace: Workspace) -> None:
    with served(Registry(workspace, "youtube", "@nobody")) as address:
        assert requests.get(f"{address}/health", timeout=60).json()["champion"] is None
        told = match(address, encoded(picture()))
    assert told.status_code == 404
    assert "champion" in told.json()["detail"]


def test_overload_is_told_and_who_is_answered_is_answered_rightly(registry: Registry) -> None:
    data = encoded(picture())
    with served(registry, waiting=1) as address:
        right = match(address, data).json()
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: match(address, data), range(24)))
        afterwards = match(address, data)
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all(answer.json() == right for answer in answers if answer.status_code == 200)
    assert {a.headers["Retry-After"] for a in answers if a.status_code == 503} == {"1"}
    assert afterwards.json() == right
