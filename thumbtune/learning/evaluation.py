"""Measure retrieval between thumbnails and titles."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from thumbtune.clip.features import head_of, image_key, reads_features, title_key
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.errors import UserError
from thumbtune.learning.intervals import Interval, mean_interval, share_interval
from thumbtune.metrics import PRIMARY, TRIPLETS, WAYS, of_rankings
from thumbtune.parameters import SPLITS, EvaluationParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.text.titles import number_titles

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from PIL import Image

BLOCK = 1024  # rows of the similarity matrix held at a time
IMAGES_AT_ONCE = 256  # decoded pictures held in memory

Embeddings = NDArray[np.float32]


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
    """Metric → 95 % interval over the videos, for every Recall@k and MRR."""
    chance: dict[str, float]
    """Metric → its expectation for a model that ranks at random."""


class Evaluation(BaseModel):
    """The measures of one model on every split."""

    model_config = ConfigDict(frozen=True)

    model: ModelReference
    splits: dict[str, SplitEvaluation]
    predictions: Table
    """Rows of `Prediction`, all splits."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether the stored predictions are still there."""
        return self.predictions.is_whole(workspace)

    def of(self, model: ModelReference) -> Self:
        """The same measures, of the same weights as this run finds them: an earlier run may have
        found them elsewhere, under another name."""
        return self.model_copy(update={"model": model})


def article_key(split: str, metric: str) -> str:
    """Name of a metric as the article logs it: `yt-title-thumbnail-train_Recall@1`."""
    return f"yt-title-thumbnail-{split}_{metric}"


class Ranking(NamedTuple):
    """For each query, where the first relevant candidate stands and what stands first."""

    rank: NDArray[np.intp]
    """1 is best, shape (queries,)."""
    similarity: Embeddings
    """Cosine with the best relevant candidate, shape (queries,)."""
    top: NDArray[np.intp]
    """The candidate of the highest cosine, shape (queries,)."""
    top_similarity: Embeddings


def rank_candidates(
    queries: Embeddings, candidates: Embeddings, query_text: NDArray, candidate_text: NDArray
) -> Ranking:
    """Rank the candidates of each query by cosine; a candidate of equal text is relevant.

    An irrelevant candidate that ties with the best relevant one counts as before it, so a model
    that embeds everything alike earns nothing.

    Args:
        queries: unit vectors, shape (queries, dimensions).
        candidates: unit vectors, shape (candidates, dimensions).
        query_text: number of each query's title, equal for equal titles, shape (queries,).
        candidate_text: the same for the candidates, shape (candidates,).
    """
    parts = []
    for start in range(0, len(queries), BLOCK):
        similarities = queries[start : start + BLOCK] @ candidates.T
        relevant = query_text[start : start + BLOCK, None] == candidate_text[None, :]
        best = np.where(relevant, similarities, -np.inf).max(axis=1)
        ahead = (~relevant & ~(similarities < best[:, None])).sum(axis=1)  # NaN counts as ahead
        parts.append((1 + ahead, best, similarities.argmax(axis=1), similarities.max(axis=1)))
    rank, similarity, top, top_similarity = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return Ranking(rank=rank, similarity=similarity, top=top, top_similarity=top_similarity)


def random_rank_metrics(texts: NDArray, recall_at: Sequence[int]) -> dict[str, float]:
    """What a random ranking of `texts` is expected to get, for each of them as the query.

    With m of n candidates relevant, none stands among the first k with probability
    C(n - m, k) / C(n, k).
    """
    rows = len(texts)
    ranks = np.arange(1, rows + 1)
    means = [metric for metric in of_rankings(recall_at) if metric.summary == "mean"]
    expected = {metric.name: 0.0 for metric in means}
    relevant, queries = np.unique(np.bincount(texts)[texts], return_counts=True)
    for m, count in zip(relevant, queries, strict=True):
        k = np.arange(rows)
        missed = np.concatenate([[1.0], np.cumprod(np.maximum(rows - m - k, 0) / (rows - k))])
        for metric in means:
            gained = float((-np.diff(missed) * metric.gain(ranks)).sum())
            expected[metric.name] += count / rows * gained
    return {name: float(value) for name, value in expected.items()}


SUMMARIES: dict[str, Callable[[NDArray], Any]] = {"mean": np.mean, "median": np.median}
INTERVALS: dict[str, Callable[[NDArray], Interval]] = {
    "share": lambda gains: share_interval(gains > 0),
    "mean": mean_interval,
}


def ranking_metrics(rank: NDArray, recall_at: Sequence[int], prefix: str = "") -> dict[str, float]:
    """The metrics of ranks that begin at 1."""
    return {
        f"{prefix}{metric.name}": float(SUMMARIES[metric.summary](metric.gain(rank)))
        for metric in of_rankings(recall_at)
    }


def ranking_intervals(
    rank: NDArray, recall_at: Sequence[int], prefix: str = ""
) -> dict[str, Interval]:
    """95 % intervals of the metrics that have one, over the videos."""
    return {
        f"{prefix}{metric.name}": INTERVALS[metric.interval](metric.gain(rank))
        for metric in of_rankings(recall_at)
        if metric.interval
    }


def embed_images(
    model: SentenceTransformer,
    count: int,
    load: "Callable[[int], Image.Image]",
    batch_size: int = 32,
) -> Embeddings:
    """Unit vectors of pictures, shape (count, dimensions); only some are decoded at a time."""
    parts = []
    for start in range(0, count, IMAGES_AT_ONCE):
        images = [load(row) for row in range(start, min(start + IMAGES_AT_ONCE, count))]
        parts.append(unit_vectors(model, images, batch_size))
    return np.concatenate(parts)


def embed_titles(
    model: SentenceTransformer, titles: Sequence[str], batch_size: int = 64
) -> Embeddings:
    """Unit vectors of titles, shape (titles, dimensions); equal titles are encoded once."""
    distinct = list(dict.fromkeys(titles))
    place = {title: row for row, title in enumerate(distinct)}
    return unit_vectors(model, distinct, batch_size)[[place[title] for title in titles]]


def embed_examples(
    reader: SentenceTransformer,
    workspace: Workspace,
    examples: Sequence[Example],
    titles: Sequence[str],
) -> tuple[Embeddings, Embeddings]:
    """Unit vectors of the examples' pictures and of titles, each in the given order.

    Args:
        reader: a whole CLIP, or its head on stored features, which must hold all of them.
    """
    if reads_features(reader):
        images = unit_vectors(reader, [image_key(example) for example in examples], 1024)
        return images, unit_vectors(reader, [title_key(title) for title in titles], 1024)
    images = embed_images(reader, len(examples), lambda row: load_image(workspace, examples[row]))
    return images, embed_titles(reader, titles)


class NotFiniteError(UserError, ValueError):
    """A model embeds something as NaN or infinity: it is broken, and no measure of it holds."""


def unit_vectors(model: SentenceTransformer, inputs: list, batch_size: int) -> Embeddings:
    """What a model embeds as unit vectors, shape (inputs, dimensions).

    Raises:
        NotFiniteError: the model is broken.
    """
    vectors = model.encode(
        inputs,
        batch_size=batch_size,
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=False,
    ).astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise NotFiniteError(
            "The model's embeddings are not finite. If it is being fine-tuned, the training has "
            "diverged: lower training.learning_rate."
        )
    return vectors


class RecallEvaluator(BaseEvaluator):
    """The metrics of `thumbtune.metrics` between the thumbnails and titles of one split.

    Beside them the accuracy of the triplets (thumbnail, title, negative). They are named as in the
    article; the primary one is from image to text.
    """

    def __init__(
        self,
        workspace: Workspace,
        examples: Sequence[Example],
        split: str,
        parameters: EvaluationParameters,
    ) -> None:
        super().__init__()
        self.workspace = workspace
        self.examples = examples
        self.split = split
        self.parameters = parameters
        self.primary_metric = article_key(split, PRIMARY)
        self.texts = number_titles([example.title for example in examples])

    def __call__(
        self,
        model: SentenceTransformer,  # type: ignore[override]
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """The metrics alone, under the article's names, as the Trainer logs them."""
        metrics, _ = self._measure(model)
        return {article_key(self.split, name): value for name, value in metrics.items()}

    def evaluate(self, model: SentenceTransformer) -> tuple[SplitEvaluation, list[Prediction]]:
        """The metrics with their intervals and chance levels, and each thumbnail's answer."""
        metrics, rankings = self._measure(model)
        recall_at = self.parameters.recall_at
        intervals: dict[str, tuple[float, float]] = {}
        chance: dict[str, float] = {}
        for prefix, ranking in rankings.items():
            intervals |= ranking_intervals(ranking.rank, recall_at, prefix)
            expected = random_rank_metrics(self.texts, recall_at)
            chance |= {f"{prefix}{name}": value for name, value in expected.items()}
        evaluation = SplitEvaluation(
            rows=len(self.examples), metrics=metrics, intervals=intervals, chance=chance
        )
        return evaluation, self._predictions(rankings[""])

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], dict[str, Ranking]]:
        negatives = [example.title_neg for example in self.examples if example.title_neg]
        titles = [example.title for example in self.examples]
        images, vectors = embed_examples(model, self.workspace, self.examples, titles + negatives)
        titles_, negatives_ = vectors[: len(titles)], vectors[len(titles) :]
        rankings = {
            way: rank_candidates(*pair, self.texts, self.texts)
            for way, pair in zip(WAYS, ((images, titles_), (titles_, images)), strict=True)
        }
        metrics: dict[str, float] = {}
        for prefix, ranking in rankings.items():
            metrics |= ranking_metrics(ranking.rank, self.parameters.recall_at, prefix)
        if len(negatives) == len(titles):
            right = (images * titles_).sum(axis=1) > (images * negatives_).sum(axis=1)
            metrics[TRIPLETS.name] = float(right.mean())
        return metrics, rankings

    def _predictions(self, ranking: Ranking) -> list[Prediction]:
        return [
            Prediction(
                split=self.split,
                video_id=example.id,
                rank=int(ranking.rank[row]),
                similarity=float(ranking.similarity[row]),
                top_title=self.examples[int(ranking.top[row])].title,
                top_similarity=float(ranking.top_similarity[row]),
            )
            for row, example in enumerate(self.examples)
        ]


def evaluate_model(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: EvaluationParameters,
    precision: Precision,
) -> Evaluation:
    """Measure one model on every split of a table of `Example`.

    Args:
        fragments: of the names of the parameters that were or will be trained; what is frozen
            has its features stored.
        precision: of the stored features.
    """
    loaded = load_model(model, workspace)
    freeze(loaded, fragments)
    rows = workspace.read_table(examples, Example)
    reader, _ = head_of(workspace, loaded, rows, precision)
    splits: dict[str, SplitEvaluation] = {}
    predictions: list[Prediction] = []
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        evaluator = RecallEvaluator(workspace, of_split, split, parameters)
        splits[split], answers = evaluator.evaluate(reader)
        predictions += answers
        metrics = ", ".join(
            f"{k} {v:.3f}" for k, v in splits[split].metrics.items() if "-" not in k
        )
        logger.info("%s on %s (%d rows): %s", model.name, split, len(of_split), metrics)
    stored = workspace.write_table("predictions", predictions)
    return Evaluation(model=model, splits=splits, predictions=stored)
