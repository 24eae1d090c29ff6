"""A run with nothing to do says so in a second; whatever has changed since, it is run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.small_channel import quick_run
from thumbtune.channel.registry import SWEEP, Registry
from thumbtune.flows.finished import nothing_to_do
from thumbtune.flows.train_flow import train_and_tell
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_harness")]


class Ran(NamedTuple):
    parameters: TrainParameters
    told: str
    registry: Registry

    def file(self, pattern: str) -> Path:
        """The first file of the workspace of that name."""
        return min(self.registry.workspace.root.glob(pattern))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def ran(root: Path, prefect_harness: None) -> Ran:
    parameters = TrainParameters.model_validate(quick_run(root))
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda text="", **options: said.append(text))
        train_and_tell(parameters)
    workspace = Workspace.open(parameters.workspace)
    return Ran(parameters, said[-1], Registry(workspace, "folder", parameters.channel))


def test_it_says_what_the_last_run_said(ran: Ran) -> None:
    again = nothing_to_do(ran.parameters)
    assert again.startswith("Nothing to do: all is as the run of a moment ago has left it.\n")
    figures = next(line for line in ran.told.splitlines() if line.startswith("Recall@1"))
    assert figures in again
    assert "Put it to use:" in again
    assert "Log:" not in again


ASKED = {
    "another parameter": {"training": {"recipe": "given", "epochs": 2}},
    "a refresh": {"refresh": True},
    "what is to be published": {"publish": {"model_repo": "me/clip"}},
    "a list that is asked for anew": {"videos": {"expiration_hours": 0}},
}


@pytest.mark.parametrize("change", ASKED)
def test_what_is_asked_otherwise_is_done(ran: Ran, change: str) -> None:
    asked = ran.parameters.model_dump() | ASKED[change]
    assert nothing_to_do(TrainParameters.model_validate(asked)) == ""


def gone(file: Path) -> None:
    file.unlink()


def damaged(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"\xfe")


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a thumbnail is gone": ("thumbnails/??/*.jpg", gone),
    "a thumbnail is damaged": ("thumbnails/??/*.jpg", damaged),
    "the report is gone": ("models/*/report.html", gone),
    "weights are damaged": ("models/*/model/*.safetensors", damaged),
    "the table of examples is damaged": ("examples/*", damaged),
    "the record is damaged": ("registry/*/finished.json", damaged),
    "a decision is gone": ("registry/*/decisions/*.json", gone),
}


@pytest.mark.parametrize("change", FILES)
def test_what_is_stored_is_looked_at(ran: Ran, change: str) -> None:
    pattern, harm = FILES[change]
    file = ran.file(pattern)
    content = file.read_bytes()
    harm(file)
    assert nothing_to_do(ran.parameters) == ""
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    assert nothing_to_do(ran.parameters)


def test_a_sweep_a_new_video_and_a_rollback_give_a_run_something_to_do(ran: Ran) -> None:
    sweep = ran.registry.workspace.root / ran.registry.path / SWEEP
    sweep.write_text("{}")
    assert nothing_to_do(ran.parameters) == ""
    sweep.unlink()

    manifest = Path(str(ran.parameters.channel)) / "manifest.json"
    rows = json.loads(manifest.read_text())
    manifest.write_text(json.dumps([*rows, {**rows[0], "id": "new", "title": "A new one"}]))
    assert nothing_to_do(ran.parameters) == ""
    manifest.write_text(json.dumps(rows))
    assert nothing_to_do(ran.parameters) == ""  # the file is another: it is read again

    ran.registry.roll_back(1, "by hand")
    assert nothing_to_do(ran.parameters) == ""


def test_where_a_prefect_server_is_set_up_the_run_is_to_be_seen_there(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert nothing_to_do(ran.parameters) == ""
