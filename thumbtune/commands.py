"""The exact commands that a message tells to run next: whole, and quoted for a shell."""

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

DEFAULT_WORKSPACE = "~/.thumbtune"


def thumbtune_command(*arguments: str) -> str:
    """A command of `thumbtune`, by the script of this environment, which need not be active."""
    script = Path(sys.executable).with_name("thumbtune")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "thumbtune.app.cli"]
    return shlex.join([*start, *arguments])


def flows_folder() -> Path:
    """Where the flows are: in the installed package, or at the top of the repository."""
    flows = find_spec("thumbtune.flows")
    assert flows
    [folder] = flows.submodule_search_locations or [""]
    return Path(folder).resolve()


def train_command(*arguments: str) -> str:
    """A training from the command line."""
    return thumbtune_command("train", *arguments)


def channel_options(source: str | None, channel: str | None) -> list[str]:
    """What names a channel to any command."""
    named = ["--source", source] if source else []
    return [*named, "--channel", channel] if channel else named


def workspace_options(location: str) -> list[str]:
    """What names a workspace to any command: nothing for the default one."""
    if location == str(Path(DEFAULT_WORKSPACE).expanduser().resolve()):
        return []
    return ["--workspace", location]
