"""Several processes that work on one job side by side, one per GPU, started by torchrun."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel

from tasks.errors import UserError

ERROR = "error.json"


class ProcessesError(UserError):
    """One of the processes failed, or there cannot be so many of them."""


def run_in_processes(
    module: str,
    job: BaseModel,
    processes: int,
    tell: Callable[[str], None],
    mended: Sequence[type[UserError]] = (),
) -> bytes:
    """Run `python -m module JOB RESULT` in several processes of this machine that know each other.

    If one of them fails, or this one is interrupted, all are ended.

    Args:
        module: its main reads the job from the file JOB; the process of rank 0 writes to RESULT.
        tell: gets each line that the processes print.
        mended: errors of a process that come through as they are, since the caller mends them.

    Returns:
        The content of RESULT.

    Raises:
        ProcessesError: a process failed, or there are fewer GPUs than processes.
    """
    check_devices(processes)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(job.model_dump_json())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
        command += ["--module", module, str(folder / "job.json"), str(folder / "result.json")]
        code = _run(command, _environment(processes, folder), tell)
        if code != 0:
            said = _first_failure(folder / ERROR)
            for kind in mended:
                if said.startswith(f"{kind.__name__}: "):
                    raise kind(said.removeprefix(f"{kind.__name__}: "))
            why = said.splitlines()[-1] if said else f"exit code {code}, see its output"
            raise ProcessesError(f"training.processes: one of {processes} processes failed: {why}")
        return (folder / "result.json").read_bytes()


def check_devices(processes: int) -> None:
    """Raise ProcessesError if there are GPUs, but fewer than processes."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ProcessesError(
            f"training.processes is {processes}, but this machine has {gpus} "
            f"GPU{'s' if gpus > 1 else ''}, and each process needs its own. Lower it."
        )


def _environment(processes: int, folder: Path) -> dict[str, str]:
    """Where torchrun writes the first failure, and an equal share of the cores for each process."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    environment["TORCHELASTIC_ERROR_FILE"] = str(folder / ERROR)
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"  # else the Trainer overlooks the other processes
    return environment


def join_processes() -> None:
    """Make this process one of those that `run_in_processes` has started, on a GPU of its own.

    It ends with the process that called that, even if that one is killed.
    """
    threading.Thread(target=_end_at_end_of_input, daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group()


def _end_at_end_of_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _run(command: list[str], environment: dict[str, str], tell: Callable[[str], None]) -> int:
    pipe = subprocess.PIPE  # of the input nothing comes but its end
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            for line in process.stdout or ():
                tell(line.rstrip())
        except BaseException:
            process.terminate()  # torchrun ends its processes
            raise
    return process.returncode


def _first_failure(file: Path) -> str:
    """The error of the process that failed first; empty if it had no time to say anything."""
    if not file.exists():
        return ""
    said = json.loads(file.read_bytes())["message"]
    text = said["message"] if isinstance(said, dict) else said
    return str(text).strip()
