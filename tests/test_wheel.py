"""The wheel, as somebody has it who installs it beside a project of their own."""

import json
import os
import subprocess
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.documentation import ROOT
from tests.fresh_clone import copy_project, make_environment
from tests.prefect_server import Server, free_port, running_server, wait_until
from tests.server_logs import Logs

pytestmark = pytest.mark.whole

TASKS = """
from invoke import task  # Invoke's file has this name too

@task
def build(c):
    pass
"""
TRAIN = (
    *("--source", "sample", "--model", "sample", "--negatives.text_model", "sample"),
    *("--training.epochs", "10", "--training.learning_rate", "0.001"),
)
PICTURE = ROOT / "sample" / "channel" / "images" / "ZUtHjOXZGZQ.jpg"


class Installed:
    """A fresh environment with the wheel, and a folder of somebody else's that has a tasks.py.

    What the wheel needs is found in the environment that runs the tests.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "tasks.py").write_text(TASKS)
        (self.project / "flows.py").write_text("raise ImportError('not for you')")
        place = folder / "venv"
        self.site_packages = make_environment(place)
        self.bin = place / "bin"
        self.environment = {
            **{name: value for name, value in os.environ.items() if "THUMBTUNE" not in name},
            "HOME": str(folder / "home"),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "COLUMNS": "200",
        }
        pip = ["pip", "--python", str(self.bin / "python"), "install", "--quiet", "--no-deps"]
        self.run(str(Path(sysconfig.get_path("scripts")) / "python"), "-m", *pip, str(wheel))

    def run(
        self, *command: str, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.project,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def thumbtune(self, *arguments: str, **environment: str) -> str:
        """What a command prints."""
        return self.run(str(self.bin / "thumbtune"), *arguments, **environment).stdout

    def python(self, *arguments: str, **environment: str) -> str:
        return self.run(str(self.bin / "python"), *arguments, **environment).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy_project(folder / "source")
    python = str(Path(sysconfig.get_path("scripts")) / "python")
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def own_server(
    tmp_path_factory: pytest.TempPathFactory, logs: Logs, tables: Path
) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("prefect"), logs, tables) as server:
        yield server


@pytest.fixture(scope="module")
def trained(installed: Installed, own_server: Server) -> str:
    """What a training prints."""
    return installed.python(
        "-m", "thumbtune.flows.train_flow", *TRAIN, PREFECT_API_URL=own_server.api
    )


def test_one_package_is_installed_with_its_license_and_deployments(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"thumbtune"}
    inside = {name.partition(".dist-info/")[2] or name for name in names}
    assert {"licenses/LICENSE", "thumbtune/py.typed", "thumbtune/prefect.yaml"} <= inside


def test_it_is_not_the_checkout_that_runs(installed: Installed) -> None:
    code = "import thumbtune, thumbtune.flows as f; print(thumbtune.__file__, f.__file__)"
    for place in installed.python("-c", code).split():
        assert Path(place).is_relative_to(installed.site_packages)


def test_beside_other_peoples_modules_a_training_helps(trained: str) -> None:
    assert "0.272 untouched → 0.290 the article's recipe → 0." in trained


def test_the_demo_needs_nothing_set_up_and_a_second_one_has_nothing_to_do(
    installed: Installed, tmp_path: Path
) -> None:
    """It has a Prefect server of its own for as long as it lasts."""
    first = installed.thumbtune("demo", HOME=str(tmp_path))
    assert first.startswith("Ahead: 274 videos (listed now); 274 thumbnails stored, 0 to fetch; ")
    assert "0.272 untouched → 0.290 the article's recipe → 0." in first
    [log] = [line.partition(" ")[2].strip() for line in first.splitlines() if "Log:" in line]
    assert "Finished in state Completed" in Path(log).read_text()
    again = installed.thumbtune("demo", HOME=str(tmp_path))
    assert again.startswith("Nothing to do: ")


def test_what_it_says_to_run_next_runs(trained: str, installed: Installed) -> None:
    [match] = [line.strip() for line in trained.splitlines() if "thumbtune match" in line]
    assert "cosine" in installed.run("bash", "-c", match).stdout


def test_the_command_line_matches_and_searches(trained: str, installed: Installed) -> None:
    said = json.loads(installed.thumbtune("match", str(PICTURE), "A red boat", "A cake", "--json"))
    assert {fit["title"] for fit in said["titles"]} == {"A red boat", "A cake"}
    found = json.loads(installed.thumbtune("search", "a red boat", "--top", "3", "--json"))
    assert len(found) == 3
    assert installed.thumbtune("--version").startswith("thumbtune ")


def test_the_page_answers(trained: str, installed: Installed) -> None:
    port = free_port()
    command = [str(installed.bin / "thumbtune"), "web", "--port", str(port)]
    page = subprocess.Popen(command, cwd=installed.project, env=installed.environment)
    try:
        wait_until(lambda: answers(port), tell=lambda: "the page does not answer")
    finally:
        page.terminate()
        page.wait(30)


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}", timeout=10).ok
    except requests.ConnectionError:
        return False


def test_its_deployments_are_made_and_run_by_a_worker(
    installed: Installed, own_server: Server
) -> None:
    installed.thumbtune("deploy", PREFECT_API_URL=own_server.api)
    made = {deployment["name"] for deployment in own_server.find("deployments")}
    assert made == {"train", "sample", "sweep", "watch"}
    own_server.run("train/sample")
    before = len([run for run in own_server.runs("train") if run["state_type"] == "COMPLETED"])
    with own_server.logs.new("worker").open("wb") as log:
        worker = subprocess.Popen(
            [
                str(installed.bin / "python"),
                "-m",
                "prefect",
                "worker",
                "start",
                "--pool",
                "thumbtune",
            ],
            cwd=installed.project,
            env=own_server.environment
            | installed.environment
            | {"PREFECT_API_URL": own_server.api},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        own_server.wait_for_runs("train", before + 1)
    finally:
        worker.terminate()
        worker.wait(180)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("gradio", ["-m", "thumbtune.app.cli", "web"], "web"),
        ("optuna", ["-m", "thumbtune.flows.sweep_flow", "--source", "sample"], "sweep"),
    ],
)
def test_what_an_extra_is_for_says_so_where_it_is_not_installed(
    installed: Installed, tmp_path: Path, package: str, arguments: list[str], extra: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None")
    command = [str(installed.bin / "python"), *arguments]
    done = installed.run(*command, code=1, PYTHONPATH=str(tmp_path))
    assert f"pip install 'thumbtune[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_needs_no_extra(installed: Installed, tmp_path: Path) -> None:
    code = "import sys; sys.modules |= dict.fromkeys(('gradio', 'optuna', 's3fs', 'prefect_dask'))"
    modules = ("thumbtune.flows.train_flow", "thumbtune.flows.watch_flow", "thumbtune.app.cli")
    installed.python("-c", "\n".join([code, *(f"import {module}" for module in modules)]))
