"""Processes of this project for tests, side by side, that do not each import torch.

One process imports what they need, and they are forks of it.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
STREAMS = ("stdin", "stdout", "stderr")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "thumbtune.flows.train_flow",
        "thumbtune.flows.training",
        "tests.use.test_indexing",
        "tests.channel.test_quota",
        "tests.channel.test_registry",
    ]
)


class Script:
    """`python SCRIPT ARGUMENTS` in a fork, with an environment and streams of its own.

    Prefect's settings and the Hugging Face libraries' are those of the process that was forked:
    what depends on an environment that they read on import wants a new Python.
    """

    def __init__(
        self,
        script: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdin: str = "",
    ) -> None:
        """Start it.

        Args:
            script: below the project's folder, from which it runs.
        """
        self.command = [str(ROOT / script), *arguments]
        self.folder = TemporaryDirectory()
        self.streams = {name: Path(self.folder.name, name) for name in STREAMS}
        for name, file in self.streams.items():
            file.write_text(stdin if name == "stdin" else "")
        self.process = FORKS.Process(
            target=_be, args=(self.command, dict(environment), self.streams), daemon=True
        )
        self.process.start()

    @property
    def stdout(self) -> str:
        """What it has said."""
        return self.streams["stdout"].read_text()

    def terminate(self) -> None:
        """Stop it as a supervisor does."""
        self.process.terminate()

    def wait(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """What has come of it."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.command, timeout)
        said = [self.streams[name].read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(self.command, self.process.exitcode, *said)


def _be(command: list[str], environment: dict[str, str], streams: dict[str, Path]) -> None:
    """Become the command, in this process that was forked for it."""
    for number, name in enumerate(STREAMS):
        os.dup2(os.open(streams[name], os.O_RDONLY if name == "stdin" else os.O_WRONLY), number)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR is looked at again
    os.chdir(ROOT)
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without
