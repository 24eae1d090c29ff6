"""Step: measure retrieval between thumbnails and titles."""

from pydantic import BaseModel, ConfigDict

from tasks.models import ModelReference
from tasks.workspace import Table


class Prediction(BaseModel):
    """What a model answers for one thumbnail: the titles of its split, ranked by cosine."""

    model_config = ConfigDict(frozen=True)

    split: str
    video_id: str
    rank: int
    """Rank of the thumbnail's own title, 1 is best; equal titles count as its own."""
    similarity: float
    """Cosine of the thumbnail with its own title."""
    top_title: str
    """The title that the model ranks first."""
    top_similarity: float


class SplitEvaluation(BaseModel):
    """The measures of one model on one split."""

    model_config = ConfigDict(frozen=True)

    rows: int
    metrics: dict[str, float]
    """`Recall@<k>`, `MRR`, `median_rank` (image → text); the same with the prefix
    `text-to-image_`; `cosine_accuracy` (triplets) where there are negatives."""
    intervals: dict[str, tuple[float, float]]
    """Metric → bootstrap 95 % interval, for every Recall@k and MRR."""
    chance: dict[str, float]
    """Metric → its expectation for a model that ranks at random."""


class Evaluation(BaseModel):
    """The measures of one model on every split."""

    model_config = ConfigDict(frozen=True)

    model: ModelReference
    splits: dict[str, SplitEvaluation]
    predictions: Table
    """Rows of `Prediction`, all splits."""


def article_key(split: str, metric: str) -> str:
    """Name of a metric as the article logs it: `yt-title-thumbnail-train_Recall@1`."""
    return f"yt-title-thumbnail-{split}_{metric}"
