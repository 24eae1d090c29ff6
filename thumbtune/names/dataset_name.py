"""What the name of a dataset means: a folder of this machine, or an id of the Hugging Face hub."""

from pathlib import Path


def local_folder(name: str) -> tuple[Path | None, str | None]:
    """The folder that a dataset's name means, if there is one, and the chosen configuration."""
    if folder := _folder(name):
        return folder, None
    place, _, configuration = name.rpartition(":")
    if not place or "://" in name:
        return None, None
    return _folder(place), configuration


def _folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # no right to look, ~nobody, a NUL
        return None


def absolute_path(folder: Path) -> str | None:
    """Where a folder is in the end; None where nobody can tell."""
    try:
        return str(folder.expanduser().resolve())
    except (OSError, RuntimeError, ValueError):  # links in a ring, no such user, a NUL
        return None
