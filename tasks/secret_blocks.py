"""Secrets in Prefect's blocks."""

import sqlite3
from contextlib import closing
from pathlib import Path

from thumbtune.channel.secrets import block_of, from_environment, missing, read_secret


def read_block(name: str) -> str | None:
    """A secret of a Secret block; None if there is no such block."""
    from prefect.blocks.system import Secret  # takes seconds, which most runs need not wait

    try:
        value = Secret.load(block_of(name), _sync=True).get()  # type: ignore[call-arg, union-attr]
    except ValueError:  # Prefect's error for a block that does not exist
        return None
    return str(value).strip()


def read_secret_early(name: str) -> str | None:
    """Read a secret without starting a Prefect server for it; None if only that could tell.

    Raises:
        MissingSecretError: the secret is nowhere.
    """
    if value := from_environment(name):
        return value
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        return read_secret(name)
    database = settings.server.database.connection_url
    if database and not _may_have_block(database.get_secret_value(), block_of(name)):
        raise missing(name)
    return None


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
