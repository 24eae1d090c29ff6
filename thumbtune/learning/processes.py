"""Several processes that work on one job side by side, one per GPU, started by torchrun."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch
from pydantic import BaseModel

from thumbtune.errors import VERBOSE, UserError, kinds_of

ERROR = "error.json"
USER_ERROR = "user_error.json"
LINES = 500  # of what the processes say on stderr, to be shown if they fail


class ProcessesError(UserError):
    """One of the processes failed, or there cannot be so many of them."""


def run_in_processes(
    module: str, job: BaseModel, processes: int, tell: Callable[[str], None]
) -> bytes:
    """Run `python -m module JOB RESULT` in several processes of this machine that know each other.

    If one of them fails, or this one is interrupted, all are ended. What they say on stderr is
    shown if they fail, unless the user can mend it.

    Args:
        module: its main reads the job from the file JOB and works in `one_of_several`; the process
            of rank 0 writes to RESULT.
        tell: gets each line that the processes print.

    Returns:
        The content of RESULT.

    Raises:
        UserError: that of a process.
        ProcessesError: a process failed, or there are fewer GPUs than processes.
    """
    check_devices(processes)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(job.model_dump_json())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
        command += ["--module", module, str(folder / "job.json"), str(folder / "result.json")]
        code, said = _run(command, _environment(processes, folder), tell)
        if code != 0:
            if error := _user_error(folder / USER_ERROR):
                raise error
            sys.stderr.writelines(said)
            why = _first_failure(folder / ERROR) or f"exit code {code}, see its output"
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


@contextlib.contextmanager
def one_of_several(result: str) -> Iterator[None]:
    """Be one of the processes that `run_in_processes` has started, on a GPU of its own.

    It ends with the process that called that, even if that one is killed. An error of the user is
    raised there as what it is.

    Args:
        result: the file RESULT.
    """
    threading.Thread(target=_end_at_end_of_input, daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group()
    try:
        yield
    except UserError as error:
        told = {"kind": type(error).__name__, "message": str(error)}
        Path(result).with_name(USER_ERROR).write_text(json.dumps(told))
        raise
    torch.distributed.destroy_process_group()


def _end_at_end_of_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _run(
    command: list[str], environment: dict[str, str], tell: Callable[[str], None]
) -> tuple[int, deque[str]]:
    """The exit code, and the last lines of stderr."""
    pipe = subprocess.PIPE  # of the input nothing comes but its end
    errors = None if os.environ.get(VERBOSE) else pipe
    said = deque[str](maxlen=LINES)
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, stderr=errors, text=True
    ) as process:
        listener = threading.Thread(target=_listen, args=(process.stderr, said))
        listener.start()
        try:
            for line in process.stdout or ():
                tell(line.rstrip())
        except BaseException:
            process.terminate()  # torchrun ends its processes
            raise
        listener.join()
    return process.returncode, said


def _listen(stream: IO[str] | None, said: deque[str]) -> None:
    said.extend(stream or ())


def _user_error(file: Path) -> UserError | None:
    """What a process left there, as the error that it was."""
    if not file.exists():
        return None
    told = json.loads(file.read_bytes())
    kinds = {kind.__name__: kind for kind in kinds_of(UserError)}
    return kinds.get(told["kind"], UserError)(told["message"])


def _first_failure(file: Path) -> str:
    """What the process that failed first said; empty if it had no time to say anything."""
    if not file.exists():
        return ""
    said = json.loads(file.read_bytes())["message"]
    text = said["message"] if isinstance(said, dict) else said
    return str(text).strip().splitlines()[-1]
