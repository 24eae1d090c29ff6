"""Which model is meant: a folder, known by the hash of what is in it."""

import hashlib
from pathlib import Path, PurePath, PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict

from thumbtune.names.model_name import ModelNotFoundError
from thumbtune.store.shared_files import LISTING, Listing
from thumbtune.store.workspace import Workspace, sha256_of


class ModelReference(BaseModel):
    """A sentence-transformers model in a folder, identified by its weights."""

    model_config = ConfigDict(frozen=True)

    name: str
    """As the user gave it: hub id, path or `sample`."""
    path: str
    """Its folder: absolute, or relative to the workspace if it is kept there."""
    fingerprint: str
    """Hash of the weights and configuration, or the hub's commit."""

    @property
    def is_from_hub(self) -> bool:
        """Whether this is a snapshot of a hub repository; those lie in folders named by commit."""
        return Path(self.path).name == self.fingerprint

    def kept_at(self, workspace: Workspace) -> str | None:
        """Its path in the workspace, if it is kept there.

        Records may have an absolute path, and the workspace may have moved since.
        """
        path = PurePath(self.path)
        if not path.is_absolute():
            return self.path
        if path.is_relative_to(workspace.root):
            return path.relative_to(workspace.root).as_posix()
        models, _, model = path.parts[-3:] if len(path.parts) > 3 else ("", "", "")
        moved = (models, model) == ("models", "model") and not Path(path).exists()
        return "/".join(path.parts[-3:]) if moved else None

    def called(self, name: str) -> Self:
        """The same model by another name."""
        return self.model_copy(update={"name": name})

    def is_there(self, workspace: Workspace) -> bool:
        """Whether its folder is there, in the workspace or on this machine."""
        kept = self.kept_at(workspace)
        return workspace.has(kept) if kept else Path(self.path).exists()

    def is_at(self, folder: Path) -> bool:
        """Whether a folder holds the very model that is meant."""
        return hash_of(folder) == self.fingerprint

    def is_intact(self, workspace: Workspace) -> bool:
        """Whether the workspace keeps it as it was when it was stored."""
        kept = self.kept_at(workspace)
        return kept is not None and workspace.has(kept) and workspace.passes(kept, self.is_at)

    def check(self, workspace: Workspace) -> None:
        """Raise ModelNotFoundError unless its folder holds what is meant."""
        if kept := self.kept_at(workspace):
            kept_folder(self, workspace, kept)
        elif not self.is_at(Path(self.path)):
            raise ModelNotFoundError(
                f"model: {self.path} has other weights than when it was recorded. Train again, or "
                "roll back to another version."
            )


def hash_of(folder: Path) -> str:
    """SHA-256 over a model's files; its model card, its listing and hidden files do not count.

    Weights count as one file, whether they lie in one or, with a listing, in parts.
    """
    digest = hashlib.sha256()
    for name, content in sorted(_contents(folder).items(), key=lambda item: PurePosixPath(item[0])):
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def _contents(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of each file that counts."""
    files = {
        relative.as_posix(): sha256_of(file)
        for file in folder.rglob("*")
        if (relative := file.relative_to(folder)) and file.is_file() and _counts(relative)
    }
    listing = Listing.of(folder)
    if listing and all(files.get(name) == part.sha256 for name, part in listing.parts.items()):
        own = {name: content for name, content in files.items() if name not in listing.parts}
        return own | listing.whole
    return files


def _counts(file: PurePath) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    return file.name not in ("README.md", LISTING) and not hidden


def kept_folder(reference: ModelReference, workspace: Workspace, kept: str) -> Path:
    """Where a workspace keeps a model, at a path in it.

    Raises:
        ModelNotFoundError: it is gone or damaged.
    """
    if reference.is_intact(workspace):
        return workspace.place(kept)
    if not workspace.has(kept):
        raise ModelNotFoundError(
            f"model: the weights {workspace}/{kept} are gone. Train again, or roll back to a "
            "version that has its weights."
        )
    raise ModelNotFoundError(
        f"model: its files are damaged, or another training's: {kept} in {workspace} is not as it "
        "was when it was stored. Train again, or roll back to another version."
    )
