"""What the name of a model may mean, as far as that shows without the hub and without PyTorch."""

from pathlib import Path
from typing import Literal

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from thumbtune.errors import UserError
from thumbtune.names.model_format import unread_format

Kind = Literal["model", "dataset"]


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
        raise ModelNotFoundError(neither_here_nor_there(name, parameter)) from None
    if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
        if other := unread_format(folder):
            raise ModelNotFoundError(f"{parameter}: {name} {other}")
        raise ModelNotFoundError(
            f"{parameter}: the folder {name} holds no model (neither modules.json nor "
            "config.json). Give the folder that SentenceTransformer.save_pretrained wrote."
        )
    return folder


def neither_here_nor_there(name: str, parameter: str, kind: Kind = "model") -> str:
    """What to say of a name under which there is nothing that this user may see."""
    return (
        f"{parameter}: {name!r} is neither a folder here nor a {kind} on the Hugging Face hub. "
        f"Check the spelling; for a private {kind} set HF_TOKEN."
    )
