"""Step: find the model to fine-tune, so that later steps agree on which weights they mean."""

import hashlib
from pathlib import Path

import requests
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from sample import MODEL as SAMPLE_MODEL

transformers_logging.disable_progress_bar()  # of loading weights, which takes a moment

NOT_NEEDED = ("*.onnx", "*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*", "*.tflite")
"""Weights in the formats of other frameworks, which many hub repositories carry too."""


class ModelReference(BaseModel):
    """A sentence-transformers model in a folder, identified by its weights."""

    model_config = ConfigDict(frozen=True)

    name: str
    """As the user gave it: hub id, path or `sample`."""
    path: str
    """Absolute folder that `SentenceTransformer(path)` loads."""
    fingerprint: str
    """Hash of the weights and configuration, or the hub's commit."""


class ModelNotFoundError(Exception):
    """The model cannot be had; the message names the parameter and the mend."""


class HubUnreachableError(Exception):
    """The hub did not answer; another try may help."""


def resolve_model(name: str, parameter: str = "model") -> ModelReference:
    """Find a model: `sample` (bundled), a folder, or a hub id, which is downloaded once.

    Args:
        parameter: the parameter that holds the name, for messages.

    Raises:
        ModelNotFoundError: no such folder or hub id, or no permission.
        HubUnreachableError: the hub does not answer and the model is not in its cache.
    """
    if name == "sample":
        return ModelReference(name=name, path=str(SAMPLE_MODEL), fingerprint=hash_of(SAMPLE_MODEL))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
            raise ModelNotFoundError(
                f"{parameter}: the folder {name} holds no model (neither modules.json nor "
                "config.json). Give the folder that SentenceTransformer.save_pretrained wrote."
            )
        return ModelReference(name=name, path=str(folder.resolve()), fingerprint=hash_of(folder))
    snapshot = _download(name, parameter)
    return ModelReference(name=name, path=str(snapshot), fingerprint=snapshot.name)


def hash_of(folder: Path) -> str:
    """SHA-256 over a model's files; its model card and hidden files do not count."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if file.is_file() and not hidden and file.name != "README.md":
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{relative.as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _download(name: str, parameter: str) -> Path:
    """The hub's snapshot of a model, in a folder named by its commit."""
    try:
        return Path(snapshot_download(name, ignore_patterns=_ignored(name)))
    except GatedRepoError:
        raise ModelNotFoundError(
            f"{parameter}: {name} is gated on the Hugging Face hub. Ask for access on its page "
            "and set HF_TOKEN to a token that has it."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelNotFoundError(
            f"{parameter}: {name!r} is neither a folder here nor a model on the Hugging Face hub. "
            "Check the spelling; for a private model set HF_TOKEN."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise HubUnreachableError(
            f"{parameter}: {name} is not in the local cache and the Hugging Face hub does not "
            f"answer ({type(error).__name__}). Check the network and HF_HUB_OFFLINE, or give the "
            "folder of a model that is on this machine."
        ) from None


def _ignored(name: str) -> list[str]:
    """What not to download: other frameworks' weights, and PyTorch's where safetensors are."""
    try:
        files = HfApi().list_repo_files(name)
    except (OfflineModeIsEnabled, ConnectionError, requests.ConnectionError):
        return list(NOT_NEEDED)  # then the local cache decides
    safe = any(file.endswith(".safetensors") for file in files)
    return [*NOT_NEEDED, *(["*.bin"] if safe else [])]


def load_model(reference: ModelReference) -> SentenceTransformer:
    """Load a resolved model on the GPU if there is one; code from the hub is never run."""
    return SentenceTransformer(reference.path, trust_remote_code=False)


def is_passing(task: Task, run: TaskRun, state: State) -> bool:
    """Prefect's retry condition: only an unreachable hub is worth another try."""
    try:
        state.result()
    except HubUnreachableError:
        return True
    except Exception:
        return False
    return False


@task(
    name="resolve-model",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_passing,
    persist_result=False,
)
def resolve(name: str, parameter: str) -> ModelReference:
    """Find a model; asked on every run, since a hub model may have moved."""
    return resolve_model(name, parameter)
