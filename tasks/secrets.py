"""Keys and tokens: read where they are used, never passed between tasks.

Prefect stores parameters in plain text, SecretStr included, so a secret comes from the environment
of the process or from a Prefect Secret block.
"""

import os

from prefect.blocks.system import Secret


class MissingSecretError(Exception):
    """Neither the environment nor a Prefect Secret block holds the secret."""


def read_secret(name: str) -> str:
    """Read a secret, such as `YOUTUBE_API_KEY`.

    Args:
        name: name of the environment variable; the Secret block has the same name in lower case
            with dashes (`youtube-api-key`).

    Raises:
        MissingSecretError: it is in neither place; the message says how to set it.
    """
    if value := os.environ.get(name, "").strip():
        return value
    block = name.lower().replace("_", "-")
    try:
        value = Secret.load(block, _sync=True).get()  # type: ignore[call-arg, union-attr]
    except ValueError:  # Prefect's error for a block that does not exist
        raise MissingSecretError(
            f"{name} is not set. Set the environment variable {name}, "
            f"or create a Prefect Secret block named {block!r}."
        ) from None
    return str(value).strip()
