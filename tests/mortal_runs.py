"""Runs of the train flow that can be killed at any moment, each in a process of its own.

A start of Python with Prefect and torch takes many seconds, so one process imports them once and
forks a child for each run. A run tells what it is about to do (each file that it writes, each
request that it sends to YouTube) and dies by SIGKILL where it was told to.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from prefect.settings import get_current_settings
from pydantic import BaseModel

from thumbtune.channel.registry import Registry
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import channel_place, open_index

ROOT = Path(__file__).parent.parent

STEPS = {
    r"/youtube/v3/|youtube|quota": "listing",
    r"/vi/|thumbnails": "thumbnails",
    r"models/\.model\.": "saving",
    r"models/\w+/(dataset|model)": "cards",
    r"models/": "report",
    r"predictions": "evaluation",
    r"registry/[^/]+/versions": "registry",
    r"registry/[^/]+/decisions": "promotion",
    r"channels|registry/[^/]+/\.*channel": "identity",
    r"registry/[^/]+/splits": "assignment",
    r"registry": "lock",
    r"indexes": "index",
    r"\.?workspace-id": "workspace",
}
"""The beginning of a path in the workspace, or of an address → the step that needs it. Other
folders are named by their step, and a file of Prefect's results by the task."""


class Moment(BaseModel):
    """When a run is to die: before its n-th act in a step, or so many seconds after it began."""

    step: str = ""
    number: int = 0
    seconds: float = 0.0


def options_of(workspace: Path) -> dict[str, Any]:
    return {
        "channel": "@tester",
        "model": "sample",
        "workspace": workspace,
        "negatives": {"text_model": "sample"},
        "evaluation": {"method": "holdout"},
        "thumbnails": {"batch_size": 20},
        "training": {"recipe": "given", "epochs": 3, "learning_rate": 0.001},
        "promotion": {"rule": "not_worse", "margin": 0.99},  # a champion, however it measures
    }


class Ended(BaseModel):
    """How a run ended."""

    steps: list[str]
    """The step of each act, in their order."""
    killed: bool
    error: str = ""
    """What the user reads if it failed."""
    traceback: str = ""
    run: dict[str, Any] = {}
    """The `TrainRun` if it finished."""


class Runs:
    """The process that forks the runs."""

    def __init__(self, home: Path, prefix: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            home: of Prefect's results, and of what the runs tell.
            prefix: of the command, such as `unshare`.
        """
        self.home = home
        home.mkdir(exist_ok=True)
        api = get_current_settings().api.url
        assert api
        settings = {
            "OMP_NUM_THREADS": "1",
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_LOCAL_STORAGE_PATH": str(home / "results"),
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.mortal_runs"],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, options: dict[str, Any], dies: Moment | None = None) -> Ended:
        """Run the flow once, to its end or to its death, in the environment of this process."""
        assert self.process.stdin
        assert self.process.stdout
        environment = {name: os.environ[name] for name in os.environ if "YOUTUBE" in name}
        asked = {
            "home": str(self.home),
            "options": options,
            "environment": environment,
            "dies": dies.model_dump() if dies else None,
        }
        self.process.stdin.write(json.dumps(asked, default=str) + "\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], 300)[0], "the run does not end"
        return Ended.model_validate_json(self.process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


class Outcome(NamedTuple):
    """What a channel's runs have come to."""

    metrics: dict[str, Any]
    model: str
    decided: list[tuple[int, int | None, str]]
    indexed: list[str]

    @classmethod
    def of(cls, root: Path) -> "Outcome":
        workspace = Workspace.open(root)
        registry = Registry(workspace, "youtube", "@tester")
        [version] = registry.versions()
        metrics = json.loads(
            (
                workspace.root / "models" / Path(version.model.path).parent.name / "metrics.json"
            ).read_text()
        )
        del metrics["training_seconds"]
        place = channel_place(version.model.fingerprint, version)
        return cls(
            metrics,
            version.model.fingerprint,
            [(each.version, each.champion, each.why) for each in registry.decisions()],
            [entry.id for entry in open_index(workspace, place).entries],
        )


class Witness:
    """Sees what a run does to its files and asks of YouTube, and kills it where it is told to."""

    def __init__(self, home: Path, workspace: str, dies: Moment) -> None:
        self.tells = os.open(home / "steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.workspace = f"{workspace}/"
        self.results = f"{home / 'results'}/"
        self.dies = dies
        self.seen: Counter[str] = Counter()
        self.counting = threading.RLock()  # pictures are downloaded in threads
        if dies.seconds:
            threading.Timer(dies.seconds, die).start()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python calls it before each audited act (PEP 578)."""
        step = self._step(event, arguments)
        if not step:
            return
        with self.counting:
            self.seen[step] += 1
            os.write(self.tells, f"{step}\n".encode())
            if (step, self.seen[step]) == (self.dies.step, self.dies.number):
                die()

    def _step(self, event: str, arguments: tuple[Any, ...]) -> str:
        match event:
            case "http.client.send":
                return step_of(str(arguments[1])[6:])  # b'GET /…
            case "tempfile.mkdtemp" if not str(arguments[0]).startswith(self.workspace):
                return "training"  # the Trainer's scratch folder
            case "open" if not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                return ""
            case "open" | "os.rename" | "os.link" | "os.remove":
                path = str(arguments[0])
                if path.startswith(self.workspace):
                    return step_of(path.removeprefix(self.workspace))
                if path.startswith(self.results):
                    return f"result of {re.sub('-v[0-9]+-.*', '', Path(path).name)}"
        return ""


def step_of(path: str) -> str:
    """The step that needs a file of the workspace or an address."""
    for pattern, step in STEPS.items():
        if re.match(pattern, path):
            return step
    return path.partition("/")[0]


def die() -> None:
    """As kill -9 of the run and of all that it started."""
    os.killpg(os.getpid(), signal.SIGKILL)


def live(asked: dict[str, Any]) -> None:
    """Run the flow in this process, which was forked for it."""
    from thumbtune.flows.train_flow import train

    os.setsid()
    home = Path(asked["home"])
    output = os.open(home / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(asked["environment"])
    sys.addaudithook(Witness(home, asked["options"]["workspace"], Moment(**asked["dies"] or {})))
    ended: dict[str, Any] = {}
    try:
        ended["run"] = train(**asked["options"]).model_dump(mode="json")
    except Exception as error:
        ended |= {"error": str(error) or repr(error), "traceback": traceback.format_exc()}
    (home / "ended").write_text(json.dumps(ended))
    os._exit(0)


def main() -> None:
    """Fork a run for each line that comes, and tell in a line how it ended."""
    import thumbtune.flows.train_flow
    import thumbtune.flows.training  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        home = Path(asked["home"])
        for old in ("steps", "ended"):
            (home / old).unlink(missing_ok=True)
        if not (child := os.fork()):
            live(asked)
        _, status = os.waitpid(child, 0)
        ended: dict[str, Any] = {"steps": [], "killed": os.WIFSIGNALED(status)}
        with contextlib.suppress(FileNotFoundError):  # it died before it began
            ended["steps"] = (home / "steps").read_text().splitlines()
        if not ended["killed"]:
            ended |= json.loads((home / "ended").read_text())
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
