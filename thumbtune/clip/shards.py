"""A model in two shards: the frozen weights, kept once for all versions, and what has learned.

transformers reads weights that lie in several files, so such a folder is an ordinary
SentenceTransformer. Its frozen shard is one more name of a file that the workspace keeps once.
"""

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from thumbtune.clip.ends import ends_of
from thumbtune.clip.towers import bytes_of, parameters_of
from thumbtune.store.model_reference import ModelReference, hash_of
from thumbtune.store.shared_files import KEPT, LISTING, Listing, Part, link, note_of
from thumbtune.store.workspace import Workspace, checksum, sha256_of

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
FROZEN, OWN = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

READ_ONLY = 0o444
"""A kept file has many names: what wrote through one would change all."""

Tensors = dict[str, Tensor]


def names_that_may_learn(model: SentenceTransformer) -> set[str]:
    """The weights of a version's own, as its file calls them: those that train, and those that
    a closed form is folded into, whether it was or not, so that all versions share the rest."""
    inner = getattr(model[0], "model", None)
    if inner is None:
        return set()
    ends = ends_of(model) or {}
    last = parameters_of(part for end in ends.values() for part in end)
    learn = {
        name
        for name, weight in inner.named_parameters()
        if weight.requires_grad or id(weight) in last
    }
    return _in_file(inner, learn or {_smallest(inner)})


def _in_file(model: PreTrainedModel, weights: set[str]) -> set[str]:
    """Weights by their names in a file: transformers renames some, and may cut or join them.

    All are renamed at once, with a mark where numbers of the wanted ones end up.
    """
    marks = {
        name: torch.tensor(name in weights).expand(weight.shape)
        for name, weight in model.state_dict().items()
    }
    return {name for name, mark in revert_weight_conversion(model, marks).items() if mark.any()}


def _smallest(model: nn.Module) -> str:
    """The weight that takes least; all that a version has learned may lie in other modules."""
    return min(model.named_parameters(), key=lambda named: (named[1].numel(), named[0]))[0]


def read_weights(file: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a file, views into it, and its metadata."""
    with safe_open(file, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118


def share_frozen(folder: Path, own: set[str], base: ModelReference, workspace: Workspace) -> None:
    """Cut the weights of a finished folder in two, of which the frozen shard is the workspace's.

    The folder's hash stays. Nothing is done if its names are not as they are told, or nothing is
    frozen.

    Args:
        folder: in the workspace's root.
        own: names of the weights that are no other version's.
        base: the untouched model, of which the frozen shard can be made again.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        return
    tensors, metadata = read_weights(weights)
    frozen = {name: tensor for name, tensor in tensors.items() if name not in own}
    if not frozen or not own or not own <= tensors.keys():
        return
    place, digest = keep_frozen(workspace, frozen, metadata)
    link(workspace.place(place), folder / FROZEN)
    learned = save({name: tensors[name] for name in own}, metadata)
    (folder / OWN).write_bytes(learned)  # `save_file` would make it private
    _write_index(folder, tensors, own)
    names = (FROZEN, digest, place), (OWN, sha256_of(folder / OWN), None)
    parts = {name: Part(sha256=content, shared=where) for name, content, where in names}
    parts[INDEX] = Part(sha256=sha256_of(folder / INDEX))
    whole = {WEIGHTS: sha256_of(weights)}
    listing = Listing(parts=parts, whole=whole, made_from=base.model_dump_json())
    (folder / LISTING).write_text(listing.model_dump_json())
    weights.unlink()


def _write_index(folder: Path, tensors: Tensors, own: set[str]) -> None:
    size = sum(tensor.nbytes for tensor in tensors.values())
    places = {name: OWN if name in own else FROZEN for name in sorted(tensors)}
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=1))


def keep_frozen(
    workspace: Workspace, frozen: Mapping[str, Tensor], metadata: dict[str, str]
) -> tuple[str, str]:
    """Keep frozen weights for all versions that have them, once; their path and SHA-256.

    Those that are there and whole are left as they are.
    """
    place = f"{KEPT}/{_key(frozen)}.safetensors"
    note = note_of(PurePosixPath(place)).as_posix()
    if workspace.has_all([place, note]):
        known = workspace.read(note).decode()
        if workspace.passes(place, partial(_has, content=known)):
            with suppress(PermissionError):  # another user's
                workspace.place(place).chmod(READ_ONLY)  # a sign of life: it is about to be linked
            return place, known
    scratch = workspace.root / f".{uuid.uuid4().hex}"
    try:
        scratch.touch()  # a refusal is an OSError that names it; safetensors' does not
        save_file(dict(frozen), scratch, metadata)
        scratch.chmod(READ_ONLY)
        digest = sha256_of(scratch)
        workspace.put(place, scratch)
    finally:
        scratch.unlink(missing_ok=True)
    workspace.write(note, digest.encode())
    return place, digest


def _key(frozen: Mapping[str, Tensor]) -> str:
    parts: list[str | memoryview] = []
    for name, tensor in sorted(frozen.items()):
        parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", bytes_of(tensor)]
    return checksum(*parts)


def mend_frozen(
    reference: ModelReference, workspace: Workspace, base: SentenceTransformer | None = None
) -> bool:
    """Bring back the frozen shard of a kept model; whether the model is whole now.

    Args:
        base: the untouched model, if what the workspace keeps for all is not whole either.
    """
    kept = reference.kept_at(workspace)
    folder = workspace.place(kept) if kept else Path(reference.path)
    listing = Listing.of(folder)
    if not listing or not own_is_intact(folder, listing):
        return False
    if base is not None:
        _keep_again(workspace, base, folder)
    for name, place in listing.shared.items():
        if not workspace.passes(place, partial(_has, content=listing.parts[name].sha256)):
            return False
        link(workspace.place(place), folder / name)
    return hash_of(folder) == reference.fingerprint


def _has(file: Path, content: str) -> bool:
    return sha256_of(file) == content


def own_is_intact(folder: Path, listing: Listing) -> bool:
    """Whether what a version has learned is as it was stored."""
    own = {name: part.sha256 for name, part in listing.parts.items() if not part.shared}
    try:
        return all(_has(folder / name, content) for name, content in own.items())
    except FileNotFoundError:
        return False


def _keep_again(workspace: Workspace, base: SentenceTransformer, folder: Path) -> None:
    """Keep the frozen weights of the untouched model, as a folder's index names them.

    Nothing is kept if it has not all of them.
    """
    places = json.loads((folder / INDEX).read_bytes())["weight_map"]
    names = {name for name, place in places.items() if place == FROZEN}
    with _written(workspace, base) as file:
        tensors, metadata = read_weights(file)
        if names <= tensors.keys():
            keep_frozen(workspace, {name: tensors[name] for name in names}, metadata)


@contextmanager
def _written(workspace: Workspace, model: SentenceTransformer) -> Iterator[Path]:
    """The file of a model's weights, as it is when the model is saved: names in it are others than
    in memory."""
    inner: Any = model[0].model
    with tempfile.TemporaryDirectory(dir=workspace.root, prefix=".model.") as scratch:
        inner.save_pretrained(scratch)
        yield Path(scratch) / WEIGHTS


@contextmanager
def in_one_piece(folder: Path) -> Iterator[Path]:
    """A model's folder with its weights in one file, for whoever has not the workspace."""
    if Listing.of(folder) is None:
        yield folder
        return
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".model."))
    try:
        unlike = shutil.ignore_patterns(".*", LISTING, FROZEN, OWN, INDEX)
        shutil.copytree(folder, scratch, ignore=unlike, dirs_exist_ok=True)
        shards = [read_weights(folder / shard) for shard in (FROZEN, OWN)]
        tensors = {name: tensor for part, _ in shards for name, tensor in part.items()}
        save_file(tensors, scratch / WEIGHTS, shards[0][1])
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def lies_in_one_file(reference: ModelReference, workspace: Workspace) -> bool:
    """Whether the workspace keeps a model whose weights are not cut."""
    kept = reference.kept_at(workspace)
    return kept is not None and (workspace.place(kept) / WEIGHTS).is_file()


def make_small(
    reference: ModelReference, own: set[str], base: ModelReference, workspace: Workspace
) -> int:
    """Cut the weights of a kept model that lie in one file; the bytes that its folder takes less.

    Args:
        own, base: as in `share_frozen`.
    """
    kept = reference.kept_at(workspace)
    if not kept or not reference.is_intact(workspace) or not lies_in_one_file(reference, workspace):
        return 0
    folder = workspace.place(kept)
    scratch = Path(tempfile.mkdtemp(dir=workspace.root / "models", prefix=".model."))
    try:
        shutil.copytree(folder, scratch, dirs_exist_ok=True)
        share_frozen(scratch, own, base, workspace)
        if not (scratch / OWN).exists() or hash_of(scratch) != reference.fingerprint:
            return 0
        saved = (folder / WEIGHTS).stat().st_size - (scratch / OWN).stat().st_size
        workspace.put(kept, scratch)
        return saved
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
