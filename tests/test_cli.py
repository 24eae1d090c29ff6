"""The command line `thumbtune`, as a creator starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.registry import Registry
from tasks.workspace import Workspace
from tests.test_registry import add


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    registry = Registry(workspace, "youtube", "@tester")
    for n in (1, 2):
        add(registry, n, workspace)
        registry.decide(n, 1, "promoted" if n == 1 else "kept, not promoted: it is worse")
    return registry


def thumbtune(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "thumbtune.cli", *arguments, f"--workspace={workspace.root}"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"COLUMNS": "120", "PATH": ""},
        cwd=Path(__file__).parent.parent,
    )


def test_models_lists_the_versions_and_the_champion(
    registry: Registry, workspace: Workspace
) -> None:
    done = thumbtune(workspace, "models", "--channel", "@tester")
    assert done.returncode == 0, done.stderr
    first, second = (line for line in done.stdout.splitlines() if "3" in line and "0.500" in line)
    assert "champion" in first
    assert "champion" not in second
    assert "it is worse" in done.stdout
    rows = json.loads(thumbtune(workspace, "models", "--channel=@tester", "--json").stdout)
    assert [(row["version"], row["champion"], row["weights"]) for row in rows] == [
        (1, True, True),
        (2, False, True),
    ]
    assert rows[0]["model"] == registry.versions()[0].model.path


def test_rollback_makes_a_version_the_champion(registry: Registry, workspace: Workspace) -> None:
    done = thumbtune(workspace, "rollback", "2", "--channel", "@tester", "--why", "I like it")
    assert done.stdout == f"Champion of {registry.name}: version 2\n"
    last = registry.decisions()[-1]
    assert (last.champion, last.why) == (2, "I like it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "--channel", "@nobody"), "no model of @nobody in"),
        (("models",), "there are models of: tester-"),
        (("rollback", "9", "--channel", "@tester"), "has no version 9; it has: 1, 2."),
        (("rollback", "nine", "--channel", "@tester"), "'nine' is not a valid int"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_a_wrong_argument_gets_a_message(
    workspace: Workspace, arguments: tuple[str, ...], message: str
) -> None:
    done = thumbtune(workspace, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
