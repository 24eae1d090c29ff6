"""CLIP, adapted to one YouTube channel's titles and thumbnails.

From Python:

    import thumbtune

    run = thumbtune.train(channel="@handle")
    champion = thumbtune.open_champion(channel="@handle")
    for fit in champion.rank_titles("thumbnail.jpg", ["How I cut my bill", "My new desk"]):
        print(f"{fit.cosine:.2f}  better than {fit.percentile:.0f} % of your own  {fit.title}")
    champion.compare(["first.jpg", "second.jpg"], ["How I cut my bill"])
    champion.search("a desk with two screens")

The command line is `thumbtune.app.cli`. What Prefect runs is in `thumbtune.flows` and
`thumbtune.tasks`; the method, without Prefect, is all the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thumbtune.app.api import train
    from thumbtune.errors import UserError
    from thumbtune.flows.training import TrainRun
    from thumbtune.use.champion import Champion, open_champion
    from thumbtune.use.indexing import Hit
    from thumbtune.use.matching import Fit

__all__ = ["Champion", "Fit", "Hit", "TrainRun", "UserError", "open_champion", "train"]

PLACES = {
    "Champion": "thumbtune.use.champion",
    "Fit": "thumbtune.use.matching",
    "Hit": "thumbtune.use.indexing",
    "TrainRun": "thumbtune.flows.training",
    "UserError": "thumbtune.errors",
    "open_champion": "thumbtune.use.champion",
    "train": "thumbtune.app.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and `thumbtune --help` shall not."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)
