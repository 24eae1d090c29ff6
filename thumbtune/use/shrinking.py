"""Make versions small that were kept whole: what is frozen in them is kept once for all."""

from collections.abc import Iterator
from typing import NamedTuple

from thumbtune.channel.registry import Registry, Version, registries
from thumbtune.clip.models import load_model
from thumbtune.clip.shards import lies_in_one_file, make_small, names_that_may_learn
from thumbtune.clip.trainable import set_trainable
from thumbtune.errors import UserError
from thumbtune.store.workspace import Workspace


class Shrunk(NamedTuple):
    """What became of one version."""

    channel: str
    version: int
    saved: int
    """Bytes; 0 if there was nothing to do."""
    unmade: str = ""
    """Why it could not be done."""


def shrink(workspace: Workspace) -> Iterator[Shrunk]:
    """Cut the weights of all channels' versions in two; a version computes what it did before.

    A run of the channel is waited for.
    """
    for registry in registries(workspace):
        with registry.one_run_at_a_time(lambda _: None):
            for version in registry.versions():
                yield _shrunk(registry, version)


def _shrunk(registry: Registry, version: Version) -> Shrunk:
    workspace = registry.workspace
    if not lies_in_one_file(version.model, workspace):  # else its base need not be loaded
        return Shrunk(registry.name, version.number, 0)
    try:
        base = load_model(version.untouched, workspace)
        set_trainable(base, version.parameters.training.trainable)
    except UserError as error:
        return Shrunk(registry.name, version.number, 0, f"its base cannot be had: {error}")
    own = names_that_may_learn(base)
    saved = make_small(version.model, own, version.untouched, workspace)
    return Shrunk(registry.name, version.number, saved)
