"""What a training prints at its end: commands that can be copied into any shell."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.small_channel import add_version
from thumbtune.app.cli import app
from thumbtune.channel.registry import Registry, Version
from thumbtune.flows.next_steps import next_steps
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace
from thumbtune.use.matching import examples_of


def steps(workspace: Workspace, channel: str = "@tester") -> list[list[str]]:
    """The words of each command that is told, without the program."""
    told = next_steps(TrainParameters(channel=channel, workspace=str(workspace)))
    words = [shlex.split(line) for line in told.splitlines() if line.startswith("  ")]
    assert all(Path(program).exists() for program, *_ in words)
    return [arguments for _, *arguments in words]


def test_the_default_workspace_and_its_only_channel_are_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    workspace = Workspace.open("~/.thumbtune")
    add_version(workspace)
    match, search, web = steps(workspace)
    command, picture, *titles = match
    assert command == "match"
    assert Path(picture).is_file()
    assert len(titles) == 3
    assert search == ["search", titles[0]]
    assert web == ["web"]


def test_another_workspace_is_named_and_quoted(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "my workspace; rm -r")
    add_version(workspace)
    for _, option, place, *_ in steps(workspace):
        assert (option, place) == ("--workspace", str(workspace))


def test_a_channel_is_named_where_another_would_answer(
    workspace: Workspace, version: Version
) -> None:
    add_version(workspace, "@other", seed=1)
    for channel in ("@tester", "@other"):
        for _, _, _, *options in steps(workspace, channel):
            assert options[:4] == ["--source", "youtube", "--channel", channel]


def test_a_title_that_begins_like_an_option_is_still_a_title(workspace: Workspace) -> None:
    version = add_version(workspace)
    registry = Registry(workspace, "youtube", "@dashes")
    rows = [
        row.model_copy(update={"title": f"--model {row.title}"})
        for row in examples_of(workspace, version)
    ]
    examples = workspace.write_table("examples", rows)
    own = version.parameters.model_copy(update={"channel": "@dashes"})
    registry.add(version.model, version.untouched, own, examples, [], [], {})
    registry.decide(1, 1, "promoted")
    search = steps(workspace, "@dashes")[1]
    done = CliRunner().invoke(app, search)
    assert done.exit_code == 0, done.stderr


def test_a_model_that_was_not_promoted_can_be_looked_at_and_taken(workspace: Workspace) -> None:
    version = add_version(workspace)
    Registry(workspace, "youtube", "@tester").decide(1, None, "kept")
    models, rollback = steps(workspace)
    assert models[0] == "models"
    assert rollback[:2] == ["rollback", str(version.number)]
