"""The deployments of prefect.yaml, wherever thumbtune is installed."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import requests

from thumbtune.commands import flows_folder
from thumbtune.errors import UserError

TIMEOUT = 10  # seconds

POOL = "thumbtune"
"""The work pool that prefect.yaml names."""

NEED_A_CHANNEL = ("train/train", "sweep/sweep")
"""Deployments of a source that has many."""


class DeploymentError(UserError):
    """Prefect could not make the deployments; it has said why."""


def deployments_file() -> Path:
    """Where prefect.yaml is: in the installed package, or at the top of the repository."""
    installed = Path(str(files("thumbtune"))) / "prefect.yaml"
    if installed.is_file():
        return installed
    return flows_folder().parent / "prefect.yaml"


def make_deployments() -> None:
    """Make the work pool if it is not there, and all deployments anew.

    Raises:
        DeploymentError: Prefect refuses, or its server does not answer.
    """
    _check_server()
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(deployments_file()))
    _require_channels()


def _require_channels() -> None:
    """Mark `channel` as required, in the form and by the server, where the source needs one.

    The parameter model cannot: the source `sample` has no channel, and it has the same flow.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    with get_client(sync_client=True) as client:
        for name in NEED_A_CHANNEL:
            deployment = client.read_deployment_by_name(name)
            schema = dict(deployment.parameter_openapi_schema or {})
            schema["required"] = sorted({*schema.get("required", ()), "channel"})
            client.update_deployment(
                deployment.id, DeploymentUpdate(parameter_openapi_schema=schema)
            )


def _check_server() -> None:
    """Raise DeploymentError if there should be a server and none answers."""
    from prefect.settings import get_current_settings  # takes a second

    if not (api := get_current_settings().api.url):
        return  # Prefect starts one of its own for a moment, with the database of this machine
    try:
        requests.get(f"{api}/health", timeout=TIMEOUT).raise_for_status()
    except requests.RequestException as error:
        raise DeploymentError(
            f"PREFECT_API_URL: no Prefect server answers at {api} ({type(error).__name__}). Start "
            "it with `prefect server start`, or unset PREFECT_API_URL."
        ) from None


def _prefect(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "prefect", *arguments], check=False)
    if done.returncode != 0:
        raise DeploymentError(f"`prefect {' '.join(arguments)}` failed; what it said stands above.")
