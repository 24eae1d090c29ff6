"""What a trained model is for: match titles with thumbnails, and search.

The champion of a channel, from Python:

    from thumbtune import open_champion

    champion = open_champion()  # or open_champion(channel="@handle")
    picture = champion.read_picture("thumbnail.jpg")
    for fit in champion.rank_titles(picture, ["How I cut my bill", "My new desk"]):
        print(f"{fit.cosine:.2f}  better than {fit.percentile:.0f} % of your own  {fit.title}")

The command line is `thumbtune.app.cli`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thumbtune.use.matching import Fit, Matcher, open_champion

__all__ = ["Fit", "Matcher", "open_champion"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and `thumbtune --help` shall not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from thumbtune.use import matching

    return getattr(matching, name)
