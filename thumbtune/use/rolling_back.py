"""Make another version of a channel's model the champion, by hand."""

from contextlib import suppress

from thumbtune.channel.registry import Decision, Registry
from thumbtune.clip.models import folder_of
from thumbtune.errors import UserError


def roll_back(registry: Registry, number: int, why: str) -> Decision:
    """Make a version the champion; weights that are damaged are mended first, if they can be.

    Raises:
        UnknownVersionError, ModelNotFoundError: see `Registry.roll_back`.
    """
    with suppress(UserError):  # the registry says what is wrong
        folder_of(registry.version(number).model, registry.workspace)
    return registry.roll_back(number, why)
