"""Keys and tokens: read where they are used, never passed between tasks.

Prefect stores parameters in plain text, SecretStr included, so a secret comes from the environment
of the process or from a Prefect Secret block.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tasks.errors import UserError


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
    if value := _from_environment(name):
        return value
    from prefect.blocks.system import Secret  # takes seconds, which most runs need not wait

    try:
        value = Secret.load(_block(name), _sync=True).get()  # type: ignore[call-arg, union-attr]
    except ValueError:  # Prefect's error for a block that does not exist
        raise _missing(name) from None
    return str(value).strip()


def read_secret_early(name: str) -> str | None:
    """Read a secret without starting a Prefect server for it; None if only that could tell.

    Raises:
        MissingSecretError: the secret is nowhere.
    """
    if value := _from_environment(name):
        return value
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        return read_secret(name)
    database = settings.server.database.connection_url
    if database and not _may_have_block(database.get_secret_value(), _block(name)):
        raise _missing(name)
    return None


def _from_environment(name: str) -> str:
    return os.environ.get(name, "").strip()


def _block(name: str) -> str:
    return name.lower().replace("_", "-")


def _missing(name: str) -> MissingSecretError:
    return MissingSecretError(
        f"{name} is not set. Set the environment variable {name}, "
        f"or create a Prefect Secret block named {_block(name)!r}."
    )


def _may_have_block(database: str, block: str) -> bool:
    """Whether the database of Prefect's own server could have a block; unknown counts as yes."""
    kind, _, path = database.partition(":///")
    if not kind.startswith("sqlite"):
        return True
    file = Path(path.partition("?")[0])
    if not file.is_file():
        return False  # no server has run here yet
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM block_document WHERE name = ?", (block,))
            return found.fetchone() is not None
    except sqlite3.Error:  # locked, or another version's
        return True
