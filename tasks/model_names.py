"""What the name of a model may mean, as far as that shows without the hub and without PyTorch."""

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from tasks.errors import UserError


class ModelNotFoundError(UserError):
    """The model cannot be had; the message names the parameter and the mend."""


def folder_named(name: str, parameter: str) -> Path | None:
    """The folder that a name stands for; None for what can only be an id of the hub.

    Args:
        parameter: the parameter that holds the name, for messages.

    Raises:
        ModelNotFoundError: the folder holds no model, or there is none and no hub id is like that.
    """
    try:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            validate_repo_id(name)
            return None
    except (HFValidationError, OSError, RuntimeError):  # a name too long, a home that nobody has
        raise not_found(name, parameter) from None
    if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
        raise ModelNotFoundError(
            f"{parameter}: the folder {name} holds no model (neither modules.json nor "
            "config.json). Give the folder that SentenceTransformer.save_pretrained wrote."
        )
    return folder


def not_found(name: str, parameter: str) -> ModelNotFoundError:
    """The error for a name that is neither here nor on the hub."""
    return ModelNotFoundError(
        f"{parameter}: {name!r} is neither a folder here nor a model on the Hugging Face hub. "
        "Check the spelling; for a private model set HF_TOKEN."
    )
