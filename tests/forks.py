"""Processes of this project for tests, side by side, that do not each import torch.

One process imports what they need, and they are forks of it.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
STREAMS = ("stdin", "stdout", "stderr")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["flows.train_flow", "tests.test_indexing", "tests.test_quota", "tests.test_registry"]
)


def run_script(
    script: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path = ROOT,
    stdin: str = "",
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run `python SCRIPT ARGUMENTS` in a fork, with an environment and streams of its own.

    Prefect's settings and the Hugging Face libraries' are those of the process that was forked:
    what depends on an environment that they read on import wants a new Python.

    Args:
        script: below the project's folder.
    """
    with TemporaryDirectory() as folder:
        streams = {name: Path(folder, name) for name in STREAMS}
        for name, file in streams.items():
            file.write_text(stdin if name == "stdin" else "")
        command = [str(ROOT / script), *arguments]
        process = FORKS.Process(target=_be, args=(command, dict(environment), cwd, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        said = [streams[name].read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(command, process.exitcode, *said)


def _be(
    command: list[str], environment: dict[str, str], cwd: Path, streams: dict[str, Path]
) -> None:
    """Become the command, in this process that was forked for it."""
    for number, name in enumerate(STREAMS):
        os.dup2(os.open(streams[name], os.O_RDONLY if name == "stdin" else os.O_WRONLY), number)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
