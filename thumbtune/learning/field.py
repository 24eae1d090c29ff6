"""The champion in the field: how it does on videos that appeared after its training.

Its own figures are of galleries of some size, and the new videos may be few; so each of them is
ranked among as many titles, drawn from all others of the channel. No draw is made: what is told is
the mean over all of them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from thumbtune.channel.field_scores import FieldScore
from thumbtune.channel.registry import Version
from thumbtune.clip.features import head_of
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.splits import number_groups
from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import Embedded, embed_videos
from thumbtune.learning.intervals import design_effect, mean_interval
from thumbtune.learning.known_videos import known_to
from thumbtune.metrics import DECIDING, described
from thumbtune.store.workspace import Table, Workspace
from thumbtune.text.titles import number_titles


def gains_among(
    ahead: NDArray[np.intp], pool: NDArray[np.intp], gallery: int, metric: str
) -> NDArray[np.float64]:
    """What queries gain on average among titles that are drawn from more, shape (queries,).

    Args:
        ahead: titles of the pool that are nearer than the own one, shape (queries,).
        pool: other titles there are, shape (queries,).
        gallery: titles that each is ranked among, its own with them.
    """
    gain = described(metric).metric.gain
    before = np.arange(gallery)
    drawn = np.minimum(gallery - 1, pool)
    pool = pool.clip(min=1)  # of none at all none is drawn
    chances = hypergeom.pmf(before[None, :], pool[:, None], ahead[:, None], drawn[:, None])
    gains: NDArray[np.float64] = chances @ np.asarray(gain(1.0 + before), float)
    return gains


def score_later(
    workspace: Workspace, champion: Version, examples: Table, precision: Precision, number: int
) -> FieldScore | None:
    """Score a version on examples that are new since its own run; None if there are none.

    Args:
        precision: of the stored features.
        number: of the record.
    """
    rows = workspace.read_table(examples, Example)
    known = known_to(workspace, champion, set(champion.seen), rows)
    later = [place for place, row in enumerate(rows) if row.id not in known]
    gallery = gallery_of(workspace, champion)
    if not later or gallery is None:
        return None
    loaded = load_model(champion.model, workspace)
    set_trainable(loaded, champion.parameters.training.trainable)
    reader, _ = head_of(workspace, loaded, rows, precision)
    ahead, pool = _ahead(rows, np.array(later), embed_videos(reader, workspace, rows))
    groups = number_groups([rows[place] for place in later])
    values = {name: gains_among(ahead, pool, gallery, name) for name in DECIDING}
    return FieldScore(
        number=number,
        version=champion.number,
        at=datetime.now(UTC),
        videos=[rows[place].id for place in later],
        gallery=gallery,
        metrics={name: float(gains.mean()) for name, gains in values.items()},
        intervals={
            name: mean_interval(gains, design_effect(gains, groups))
            for name, gains in values.items()
        },
        promised={name: champion.metrics[name] for name in DECIDING if name in champion.metrics},
    )


def gallery_of(workspace: Workspace, version: Version) -> int | None:
    """Titles that its thumbnails were ranked among when it was trained; None if nothing tells."""
    if version.gallery is not None:
        return max(2, round(version.gallery))
    if not version.examples.is_whole(workspace):
        return None
    rows = workspace.read_table(version.examples, Example)
    return max(2, sum(row.split == "test" for row in rows))


def _ahead(
    rows: Sequence[Example], later: NDArray[np.intp], embedded: Embedded
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each later video: titles that are nearer than its own, and other titles there are."""
    texts = number_titles([row.title for row in rows])
    similar = embedded.images[later] @ embedded.titles.T
    own = (texts[later][:, None] == texts).astype(bool)
    best = np.where(own, similar, -np.inf).max(axis=1)
    ahead = (~own & ~(similar < best[:, None])).sum(axis=1)
    return ahead, (~own).sum(axis=1)
