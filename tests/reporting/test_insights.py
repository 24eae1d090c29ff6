"""What a report tells of parts of a channel."""

from collections.abc import Sequence

import numpy as np

from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import Prediction
from thumbtune.learning.intervals import mean_interval
from thumbtune.reporting.insights import Pair, slices

RANKS = np.random.default_rng(0).integers(1, 15, 20)


def of_year(year: int, titles: Sequence[str], ranks: Sequence[int]) -> list[Pair]:
    """Videos of one year, and the rank of each one's title."""
    pairs = []
    for n, (title, rank) in enumerate(zip(titles, ranks, strict=True)):
        video = {"id": f"{year}-{n}", "title": title, "published_at": f"{year}-05-01"}
        more = {"thumbnails": {}, "split": "test", "image": str(n), "title_neg": None}
        answer = {"split": "test", "rank": rank, "similarity": 0, "top_similarity": 0}
        pairs.append(
            Pair(
                Example.model_validate(video | more),
                Prediction.model_validate(answer | {"video_id": video["id"], "top_title": ""}),
            )
        )
    return pairs


def test_videos_that_belong_together_make_the_interval_of_their_year_wider() -> None:
    titles = [f"Title {n}" for n in range(20)]
    ranks = RANKS.tolist()
    once = of_year(2019, titles, ranks)
    twice = of_year(2020, titles + [title.upper() for title in titles], ranks * 2)
    apart = of_year(2021, [f"{title} {n}" for n in "ab" for title in titles], ranks * 2)
    widths = {
        each.name: each.interval[1] - each.interval[0]
        for each in slices(once + twice + apart)
        if each.by == "year"
    }
    low, high = mean_interval(1 / np.array(ranks * 2, float))
    assert widths["2021"] == high - low
    assert widths["2020"] > 1.3 * widths["2021"]  # √2, as of half as many
    assert abs(widths["2020"] / widths["2019"] - 1) < 0.06
