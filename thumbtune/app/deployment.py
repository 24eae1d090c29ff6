"""The deployments of prefect.yaml, wherever thumbtune is installed."""

import subprocess
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from thumbtune.errors import UserError

POOL = "thumbtune"
"""The work pool that prefect.yaml names."""


class DeploymentError(UserError):
    """Prefect could not make the deployments; it has said why."""


def deployments_file() -> Path:
    """Where prefect.yaml is: in the installed package, or at the top of the repository."""
    installed = Path(str(files("thumbtune"))) / "prefect.yaml"
    if installed.is_file():
        return installed
    flows = find_spec("thumbtune.flows")
    assert flows
    assert flows.origin
    return Path(flows.origin).resolve().parents[1] / "prefect.yaml"


def make_deployments() -> None:
    """Make the work pool if it is not there, and all deployments anew.

    Raises:
        DeploymentError: Prefect refuses, or its server does not answer.
    """
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(deployments_file()))


def _prefect(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "prefect", *arguments], check=False)
    if done.returncode != 0:
        raise DeploymentError(
            f"`prefect {arguments[0]} {arguments[1]}` failed, see above. Is the Prefect server of "
            "PREFECT_API_URL there? `prefect server start` starts one."
        )
