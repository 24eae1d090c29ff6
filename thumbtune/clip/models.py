"""Find the model to fine-tune, so that later steps agree on which weights they mean."""

import hashlib
import re
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import httpx2
from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from thumbtune.errors import UserError
from thumbtune.hub.problems import hub_problem
from thumbtune.names.model_name import ModelNotFoundError, folder_named
from thumbtune.sample import MODEL as SAMPLE_MODEL
from thumbtune.store.model_reference import ModelReference, hash_of, kept_folder
from thumbtune.store.shared_files import Listing
from thumbtune.store.workspace import Workspace, sha256_of

if TYPE_CHECKING:  # the watch knows models without loading one, and starts four times as fast
    from sentence_transformers import SentenceTransformer

OTHER_FRAMEWORKS = (".onnx", ".h5", ".msgpack", ".ot", ".tflite", ".gguf")
SAFE = ".safetensors"
OTHER_FOLDERS = {"onnx", "openvino", "coreml"}
"""Where hub repositories keep weights that PyTorch does not read."""


class HubUnreachableError(UserError):
    """The hub did not answer; another try may help."""


class NotAClipError(UserError):
    """The model cannot be loaded, or does not embed both pictures and titles."""


def find_model(name: str, parameter: str = "model") -> ModelReference:
    """Find a model: `sample` (bundled), a folder, or a hub id, which is downloaded once.

    Args:
        parameter: the parameter that holds the name, for messages.

    Raises:
        ModelNotFoundError: no such folder or hub id, or no permission.
        HubUnreachableError: the hub does not answer and the model is not in its cache.
    """
    if name == "sample":
        return ModelReference(name=name, path=str(SAMPLE_MODEL), fingerprint=hash_of(SAMPLE_MODEL))
    if folder := folder_named(name, parameter):
        return ModelReference(name=name, path=str(folder.resolve()), fingerprint=hash_of(folder))
    snapshot = _download(name, parameter)
    return ModelReference(name=name, path=str(snapshot), fingerprint=snapshot.name)


def _download(name: str, parameter: str, commit: str | None = None) -> Path:
    """The hub's snapshot of a model, in a folder named by its commit.

    The cached snapshot if the hub cannot be asked.

    Args:
        commit: the newest if it is not given.
    """
    try:
        listed = HfApi().model_info(name, revision=commit).siblings or []
        ignored = not_needed([sibling.rfilename for sibling in listed])
        return Path(snapshot_download(name, revision=commit, ignore_patterns=ignored))
    except HFValidationError as error:
        raise _explained(error, name, parameter) from None
    except (httpx2.HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        try:
            return _cached(name, commit)
        except LocalEntryNotFoundError:
            what = f"{name} at commit {commit}" if commit else name
            raise _explained(error, what, parameter) from None


def find_cached(name: str) -> bool:
    """Whether the hub's cache on this machine has a model."""
    try:
        _cached(name)
    except (LocalEntryNotFoundError, HFValidationError):
        return False
    return True


def _cached(name: str, commit: str | None = None, cache: Path | None = None) -> Path:
    """The snapshot of a commit, or that downloaded last; LocalEntryNotFoundError if it is not here
    or not whole."""
    place: dict[str, Any] = {"revision": commit, "cache_dir": cache}
    try:
        files = [file.path for file in get_cached_repo_tree(name, **place)]
    except CachedRepoTreeNotFoundError:  # never listed here: what is there counts as whole
        files = []
    ignored = not_needed(files)
    return Path(snapshot_download(name, ignore_patterns=ignored, local_files_only=True, **place))


def _snapshot_of(reference: ModelReference) -> Path:
    """The snapshot that a reference means; what is damaged of it is downloaded again.

    Raises:
        ModelNotFoundError, HubUnreachableError: that commit cannot be had here.
    """
    name, commit = reference.name, reference.fingerprint
    for cache in (*Path(reference.path).parents[2:3], None):  # its own, then this machine's
        with suppress(LocalEntryNotFoundError):
            folder = _cached(name, commit, cache)
            if not _remove_damaged(folder):
                return folder
    return _download(name, "model", commit)


def _remove_damaged(snapshot: Path) -> list[Path]:
    """Remove the files of a snapshot that are not as the hub gave them, and tell which.

    They are links to files that are named by their hash: git's, or of large ones SHA-256.
    """
    links = [file for file in snapshot.rglob("*") if file.is_symlink() and file.is_file()]
    damaged = [file for file in links if not _is_named_by_content(file.resolve())]
    for file in damaged:
        file.resolve().unlink()
        file.unlink()
    return damaged


def _is_named_by_content(blob: Path) -> bool:
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        return sha256_of(blob) == blob.name
    data = blob.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return git.hexdigest() == blob.name or not re.fullmatch("[0-9a-f]{40}", blob.name)


def not_needed(files: Sequence[str]) -> list[str]:
    """The files of a hub repository that are not worth a download.

    These are weights for other frameworks or for open_clip, and PyTorch's where safetensors lie
    beside them.
    """
    paths = [PurePosixPath(file) for file in files]
    safe = {path.parent for path in paths if path.suffix == SAFE and not _is_open_clips(path)}
    return [
        str(path)
        for path in paths
        if path.suffix in OTHER_FRAMEWORKS
        or OTHER_FOLDERS.intersection(path.parts[:-1])
        or _is_open_clips(path)
        or (path.suffix == ".bin" and path.parent in safe)
    ]


def _is_open_clips(path: PurePosixPath) -> bool:
    """Whether a file has weights as open_clip names them; transformers reads none of those."""
    return path.name.startswith("open_clip_") and path.suffix in (SAFE, ".bin")


def _explained(error: Exception, name: str, parameter: str) -> Exception:
    """The error to raise for one of huggingface_hub, when there is no cached snapshot either."""
    problem = hub_problem(error, name, parameter, "model")
    if problem is None:
        return error
    return (HubUnreachableError if problem.may_pass else ModelNotFoundError)(problem.message)


def folder_of(reference: ModelReference, workspace: Workspace | None = None) -> Path:
    """Where a resolved model lies on this machine; it may have been resolved on another one.

    What lies there is the very model that is meant, for a folder may change and a file break.

    Args:
        workspace: that may keep the model.

    Raises:
        ModelNotFoundError, HubUnreachableError: it cannot be had here.
    """
    kept = reference.kept_at(workspace) if workspace else None
    if workspace and kept:
        try:
            return kept_folder(reference, workspace, kept)
        except ModelNotFoundError:
            if not _mended(reference, workspace, kept):
                raise
            return workspace.place(kept)
    if reference.is_from_hub:
        return _snapshot_of(reference)
    for folder in (Path(reference.path), *_folders_found(reference, workspace)):
        if reference.is_at(folder):
            return folder
    here = find_model(reference.name)
    if here.fingerprint != reference.fingerprint:
        raise ModelNotFoundError(
            f"model: {reference.name} on this machine has other weights than where it was used "
            "before. Bring those back, or give a hub id, or a folder that all machines share."
        )
    return Path(here.path)


def _mended(reference: ModelReference, workspace: Workspace, kept: str) -> bool:
    """Bring back the part of a damaged model that all versions share; whether it is whole now.

    Raises:
        ModelNotFoundError: it would be if its base were there.
    """
    from thumbtune.clip.shards import mend_frozen, own_is_intact

    folder = workspace.place(kept)
    listing = Listing.of(folder)
    if not listing:
        return False
    if mend_frozen(reference, workspace):
        return True
    if not own_is_intact(folder, listing):
        return False
    try:
        made_from = ModelReference.model_validate_json(listing.made_from)
    except ValueError:  # somebody changed it
        return False
    try:
        base = load_model(made_from, workspace)
    except UserError as error:
        raise ModelNotFoundError(
            f"model: the frozen weights of {kept} in {workspace} are damaged or gone, and so is "
            f"the model of which they are made again. Bring {made_from.name} back as it was, train "
            "again, or roll back to another version."
        ) from error
    return mend_frozen(reference, workspace, base)


def remember_folder(reference: ModelReference, workspace: Workspace) -> None:
    """Write down where a model's folder is now: records name the place where it was."""
    is_found_by_name = reference.is_from_hub or reference.name == "sample"
    if not is_found_by_name and Path(reference.path) not in _folders_found(reference, workspace):
        workspace.write(_note_of(reference), reference.model_dump_json().encode())


def _folders_found(reference: ModelReference, workspace: Workspace | None) -> list[Path]:
    """Where a run found the same weights last, if it was elsewhere than the reference says."""
    try:
        noted = workspace.read(_note_of(reference)) if workspace else b""
        return [Path(ModelReference.model_validate_json(noted).path)]
    except (OSError, ValueError):
        return []


def _note_of(reference: ModelReference) -> str:
    return f"bases/{reference.fingerprint[:32]}.json"


def load_model(
    reference: ModelReference, workspace: Workspace | None = None
) -> "SentenceTransformer":
    """Load a resolved model on the GPU if there is one; code from the hub is never run.

    It comes in float32, however it was stored: in half precision the steps of a training round
    away, and CLIP's loss meets two types.

    Args:
        workspace: that may keep the model.

    Raises:
        NotAClipError: it is damaged, or of a kind that cannot be loaded.
        IncompleteModelError: it lacks weights, or they are no numbers.
        UnreadTitlesError: it tells no titles apart.
        UnevenTitlesError: a title's vector depends on the titles beside it.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    from thumbtune.clip.padding import embed_titles_alike
    from thumbtune.clip.unreadable import is_the_machines, why_unreadable
    from thumbtune.clip.weights import check_complete, check_finite

    logging.disable_progress_bar()  # of loading weights, which takes a moment
    folder = folder_of(reference, workspace)
    try:
        model = SentenceTransformer(
            str(folder), trust_remote_code=False, model_kwargs={"dtype": torch.float32}
        )
        in_float32(model)
        check_complete(model, reference.name)
        if not (workspace and reference.kept_at(workspace)):  # what is kept has a checksum
            check_finite(model, reference.name)
        embed_titles_alike(model, reference.name)
    except Exception as error:
        if isinstance(error, UserError) or is_the_machines(error):
            raise
        raise NotAClipError(f"model: {reference.name} {why_unreadable(folder, error)}") from error
    return without_cycle(model)


def in_float32(model: "SentenceTransformer") -> "SentenceTransformer":
    """The same model, with all weights in float32, and a configuration that says so."""
    import torch
    from transformers import PreTrainedModel

    for module in model.float().modules():
        if isinstance(module, PreTrainedModel):
            module.config.dtype = torch.float32
    return model


def without_cycle(model: "SentenceTransformer") -> "SentenceTransformer":
    """The same model, whose memory is free as soon as nobody uses it.

    Its card refers back to it. Only a full garbage collection sees that such a pair is no longer
    used, and many gigabytes of models may be loaded until Python finds one due.
    """
    proxy: Any = weakref.proxy(model)
    model.model_card_data.model = proxy
    return model


def load_clip(
    reference: ModelReference, workspace: Workspace | None = None
) -> "SentenceTransformer":
    """Load a model that embeds both thumbnails and titles.

    Raises:
        NotAClipError: it embeds only one of them, as a text model does, or cannot be loaded.
    """
    model = load_model(reference, workspace)
    missing = [kind for kind in ("image", "text") if not model.supports(kind)]
    if missing:
        raise NotAClipError(
            f"model: {reference.name} embeds {', '.join(map(str, model.modalities))} but not "
            f"{' and '.join(missing)}. Choose a CLIP, such as sentence-transformers/clip-ViT-L-14."
        )
    return model
