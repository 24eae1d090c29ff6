"""The metrics: one table that evaluation, report, cards, artifacts, promotion and sweep read.

A metric of a ranking is what its queries gain on average, each by the rank of its match. How to add
one: CONTRIBUTING.md.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

WAYS = {"": "thumbnail → title", "text-to-image_": "title → thumbnail"}
"""Prefix of a metric's name → what is ranked for what."""

PRIMARY = "MRR"
"""What chooses an epoch and a recipe. It moves with every rank, while Recall@1 of a dozen videos
hardly moves at all."""


class Metric(NamedTuple):
    """A measure of a model on a split."""

    name: str
    """As the article logs it; in files and tables."""
    label: str
    """For people."""
    gain: Callable[[Any], Any]
    """What a query gains by the rank of its match, which begins at 1; of an array of ranks, an
    array of the same shape."""
    interval: Literal["share", "mean"] | None
    """How its 95 % interval is reckoned: as of a share of hits, or of a mean of values from 0 to 1
    that are 1 for the first rank."""
    summary: Literal["mean", "median"] = "mean"
    """Of the gains of all queries. A mean has a chance level too: what a random ranking gets."""
    chance: float | None = None
    """What a model gets that knows nothing, where no ranking tells."""
    higher_is_better: bool = True
    digits: str = ".3f"
    """Format of a value."""
    headlines: Mapping[str, str] = MappingProxyType({})
    """Prefix → a short sentence, where a report begins with it."""

    @property
    def step(self) -> float:
        """What a query gains that rises from the second rank to the first."""
        return float(self.gain(1.0) - self.gain(2.0))


def recall_at(k: int) -> Metric:
    """The share of queries that find their match among the first k."""
    headlines = {"": "Thumbnail finds its title", "text-to-image_": "Title finds its thumbnail"}
    return Metric(
        name=f"Recall@{k}",
        label=f"Recall@{k}",
        gain=lambda rank: (rank <= k) * 1.0,
        interval="share",
        headlines=headlines if k == 1 else {},
    )


MRR = Metric(
    name="MRR",
    label="MRR",
    gain=lambda rank: 1 / rank,
    interval="mean",
    headlines={"": "Mean reciprocal rank"},
)
MEDIAN_RANK = Metric(
    name="median_rank",
    label="Median rank",
    gain=lambda rank: rank,
    interval=None,
    summary="median",
    higher_is_better=False,
    digits="g",
)
TRIPLETS = Metric(
    name="cosine_accuracy",
    label="Triplet accuracy",
    gain=lambda is_nearer: is_nearer,
    interval=None,
    chance=0.5,
    headlines={"": "Beats its negative title"},
)
"""The share of thumbnails that are nearer to their title than to their negative: of no ranking."""

OF_RANKINGS = [MRR, MEDIAN_RANK]
"""The table, beside Recall@k for each k of `evaluation.recall_at`."""

DECIDING = ("MRR", "Recall@1")
"""Those by which challenger and champion may be compared: means of values from 0 to 1."""

LISTED = ("Recall@1", "Recall@5", "MRR")
"""Those that a list of versions shows."""


def of_rankings(recall: Sequence[int]) -> list[Metric]:
    """All metrics of a ranking, in the order in which they are shown."""
    return [*(recall_at(k) for k in recall), *OF_RANKINGS]


class Described(NamedTuple):
    """A measured metric: which one, and of which ranking."""

    metric: Metric
    prefix: str

    @property
    def way(self) -> str:
        """What is ranked for what."""
        if self.metric is TRIPLETS:
            return "triplets of thumbnail, title and negative"
        return WAYS[self.prefix]

    @property
    def headline(self) -> str:
        """The sentence with which a report shows it first; mostly none."""
        return self.metric.headlines.get(self.prefix, "")


def described(name: str) -> Described:
    """The metric of a name that a model's measures have, such as `text-to-image_Recall@5`.

    Raises:
        KeyError: there is none.
    """
    prefix = next((prefix for prefix in WAYS if prefix and name.startswith(prefix)), "")
    own = name.removeprefix(prefix)
    if own.startswith("Recall@"):
        return Described(recall_at(int(own.removeprefix("Recall@"))), prefix)
    return Described({metric.name: metric for metric in (*OF_RANKINGS, TRIPLETS)}[own], prefix)
