"""Keys and tokens: read where they are used, never passed between tasks.

Prefect stores parameters in plain text, SecretStr included, so a secret comes from the environment
of the process or from another place that keeps secrets, such as Prefect's blocks.
"""

import os
from collections.abc import Callable

from thumbtune.errors import UserError

OTHER_PLACES: list[Callable[[str], str | None]] = []
"""Each gives a secret by its name, or None; `thumbtune.tasks` adds Prefect's Secret blocks."""


class MissingSecretError(UserError):
    """Neither the environment nor a Prefect Secret block holds the secret."""


def read_secret(name: str) -> str:
    """Read a secret, such as `YOUTUBE_API_KEY`.

    Args:
        name: name of the environment variable; the Secret block has the same name in lower case
            with dashes (`youtube-api-key`).

    Raises:
        MissingSecretError: it is in neither place; the message says how to set it.
    """
    for look in (from_environment, *OTHER_PLACES):
        if value := look(name):
            return value
    raise missing(name)


def from_environment(name: str) -> str:
    """A secret of the environment; empty if it is not set."""
    return os.environ.get(name, "").strip()


def block_of(name: str) -> str:
    """The name of the Secret block that holds a secret."""
    return name.lower().replace("_", "-")


def missing(name: str) -> MissingSecretError:
    """The error to raise for a secret that is nowhere."""
    return MissingSecretError(
        f"{name} is not set. Set the environment variable {name}, "
        f"or create a Prefect Secret block named {block_of(name)!r}."
    )
