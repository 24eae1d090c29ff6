"""The exact commands that a message tells to run next: whole, and quoted for a shell."""

import shlex
import sys
from pathlib import Path

DEFAULT_WORKSPACE = "~/.thumbtune"
TRAIN_FLOW = Path(__file__).resolve().parent.parent / "flows" / "train_flow.py"


def thumbtune_command(*arguments: str) -> str:
    """A command of `thumbtune`, by the script of this environment, which need not be active."""
    script = Path(sys.executable).with_name("thumbtune")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "thumbtune.app.cli"]
    return shlex.join([*start, *arguments])


def train_command(*arguments: str) -> str:
    """A training from the command line, by the Python that runs now."""
    return shlex.join([sys.executable, str(TRAIN_FLOW), *arguments])


def channel_options(source: str | None, channel: str | None) -> list[str]:
    """What names a channel to any command."""
    named = ["--source", source] if source else []
    return [*named, "--channel", channel] if channel else named


def workspace_options(location: str) -> list[str]:
    """What names a workspace to any command: nothing for the default one."""
    if location == str(Path(DEFAULT_WORKSPACE).expanduser().resolve()):
        return []
    return ["--workspace", location]
