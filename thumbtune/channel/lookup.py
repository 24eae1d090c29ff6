"""Find out which channel is meant, before anything is locked, listed or kept under it."""

import logging

from thumbtune.channel.identity import identify_here
from thumbtune.channel.registry import Registry
from thumbtune.channel.source import Identity, Request, source_of
from thumbtune.channel.sources.youtube.api import request_api
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace

logger = logging.getLogger(__name__)


def identify(
    workspace: Workspace,
    parameters: TrainParameters,
    request: Request = request_api,
    at_any_age: bool = False,
) -> Identity:
    """Look a channel up, if it is not known yet, and take its registry.

    A YouTube channel that is known costs nothing, a new one a unit of the quota. A handle may go
    to another channel, so it is looked up again when what is kept is out of date.

    Args:
        request: makes a call of YouTube's API.
        at_any_age: what is kept will do, however old.

    Raises:
        ChannelNotFoundError: there is no such channel.
    """
    source, channel = parameters.source, parameters.channel
    source_of(source).look_up(workspace, parameters, request, at_any_age)
    registry = Registry(workspace, source, channel)
    for other in registry.claim():
        logger.warning(
            f"registry/{other} is of the same channel as registry/{registry.name}, whose champion "
            "is newer. Only that one is used; nothing was deleted."
        )
    return identify_here(workspace, source, channel)
