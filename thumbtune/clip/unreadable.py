"""Why a model cannot be loaded, in one sentence that says what to do."""

import errno
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from thumbtune.names.model_format import json_of, unread_format
from thumbtune.store.disk import disk_error

CHOOSE = "choose another, such as sentence-transformers/clip-ViT-L-14"

POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that Git LFS has."""

NO_MEMORY = ("out of memory", "allocate memory", "not enough memory")


def is_the_machines(error: Exception) -> bool:
    """Whether an error tells of the machine, on which a model failed that may be whole."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or any(words in text for words in (*NO_MEMORY, "cuda error"))
        or disk_error(error) is not None
    )


def why_unreadable(folder: Path, error: Exception) -> str:
    """Why sentence-transformers cannot load a folder, and what to do, to follow the model's name.

    Args:
        error: what it said.
    """
    if known := unread_format(folder):
        return known
    if damaged := next(_damaged(folder), ""):
        return f"cannot be loaded: {damaged}. Download or save it again, or {CHOOSE}."
    if any(map(_names_own_code, folder.rglob("*.json"))):
        return (
            "comes with code of its own, which thumbtune never runs. Take a model that "
            "transformers knows by itself, such as sentence-transformers/clip-ViT-L-14."
        )
    mend = (
        "Install what it names" if isinstance(error, ImportError) else "Download or save it again"
    )
    return f"cannot be loaded: {_first_line(error)}. {mend}, or {CHOOSE}."


def _damaged(folder: Path) -> Iterator[str]:
    """What is wrong with a folder's files."""
    for file in sorted(each for each in folder.rglob("*") if each.suffix in FORMS):
        name = file.relative_to(folder).as_posix()
        try:
            if _begin(file, len(POINTER)) == POINTER:
                yield f"{name} is a pointer of Git LFS (`git lfs pull` brings the file itself)"
            if not FORMS[file.suffix](file):
                yield f"{name} is damaged"
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"


def _begin(file: Path, length: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(length)


def _is_json(file: Path) -> bool:
    return json_of(file) is not None


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins as one, and is as long as that tells."""
    try:
        with safe_open(file, framework="numpy"):
            return True
    except SafetensorError:
        return False


def _is_torchs(file: Path) -> bool:
    """Whether PyTorch may have written a file: a whole archive, or a pickle in old times."""
    begin = _begin(file, 2)
    return zipfile.is_zipfile(file) if begin == b"PK" else bool(begin)


FORMS: dict[str, Callable[[Path], bool]] = {
    ".json": _is_json,
    ".safetensors": _is_safetensors,
    ".bin": _is_torchs,
}
"""How the end of a file's name is checked."""


def _names_own_code(config: Path) -> bool:
    """Whether a configuration, or a list of modules, needs classes that are no library's."""
    told = json_of(config)
    if config.name == "modules.json" and isinstance(told, list):
        types = [str(module.get("type", "")) for module in told if isinstance(module, dict)]
        return not all(each.startswith("sentence_transformers.") for each in types)
    return config.name.endswith("config.json") and isinstance(told, dict) and "auto_map" in told


def _first_line(error: Exception) -> str:
    """What an error says first."""
    if "ignore_mismatched_sizes" in str(error):  # transformers writes the rest into its log
        return "its weights have other shapes than its config.json tells"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
