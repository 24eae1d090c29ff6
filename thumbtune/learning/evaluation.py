"""Measure retrieval between thumbnails and titles."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from thumbtune.clip.features import head_of, image_key, reads_features, title_key
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.splits import fold_numbers, number_groups
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.errors import UserError
from thumbtune.learning.intervals import (
    Interval,
    design_effect,
    mean_interval,
    share_interval,
)
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

OUT_OF_FOLD = "out_of_fold"
"""The split of a cross-fit: all videos, each answered by a model that has not learned from it."""

Embeddings = NDArray[np.float32]


class Prediction(BaseModel):
    """What a model answers for one thumbnail: the titles of its split or fold, ranked by cosine."""

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
    gallery: float | None = None
    """Titles that each thumbnail is ranked among, on average. None in what an earlier thumbtune
    wrote: all rows."""
    metrics: dict[str, float]
    """`Recall@<k>`, `MRR`, `median_rank` (image → text); the same with the prefix
    `text-to-image_`; `cosine_accuracy` (triplets) where there are negatives."""
    intervals: dict[str, tuple[float, float]]
    """Metric → 95 % interval over the videos, for every Recall@k and MRR."""
    chance: dict[str, float]
    """Metric → its expectation for a model that ranks at random."""


class Evaluation(BaseModel):
    """The measures of one model on every split; or, by models of folds, on all videos."""

    model_config = ConfigDict(frozen=True)

    model: ModelReference
    splits: dict[str, SplitEvaluation]
    predictions: Table
    """Rows of `Prediction`, all splits."""

    @property
    def judged_on(self) -> str:
        """The split that decides: videos that the model has neither learned from nor was chosen
        by."""
        return OUT_OF_FOLD if OUT_OF_FOLD in self.splits else "test"

    @property
    def judged(self) -> SplitEvaluation:
        """The measures on it."""
        return self.splits[self.judged_on]

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
INTERVALS: dict[str, Callable[[NDArray, float], Interval]] = {
    "share": lambda gains, effect: share_interval(gains > 0, effect),
    "mean": mean_interval,
}


def ranking_metrics(rank: NDArray, recall_at: Sequence[int], prefix: str = "") -> dict[str, float]:
    """The metrics of ranks that begin at 1."""
    return {
        f"{prefix}{metric.name}": float(SUMMARIES[metric.summary](metric.gain(rank)))
        for metric in of_rankings(recall_at)
    }


def ranking_intervals(
    rank: NDArray,
    recall_at: Sequence[int],
    prefix: str = "",
    groups: NDArray[np.intp] | None = None,
) -> dict[str, Interval]:
    """95 % intervals of the metrics that have one, over the videos.

    Args:
        groups: equal numbers for videos that belong together, shape (videos,).
    """
    intervals: dict[str, Interval] = {}
    for metric in of_rankings(recall_at):
        if metric.interval:
            gains = metric.gain(rank)
            effect = design_effect(np.asarray(gains, float), groups)
            intervals[f"{prefix}{metric.name}"] = INTERVALS[metric.interval](gains, effect)
    return intervals


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
        metrics = self._metrics(model)
        return {article_key(self.split, name): value for name, value in metrics.items()}

    def evaluate(self, model: SentenceTransformer) -> tuple[SplitEvaluation, list[Prediction]]:
        """The metrics with their intervals and chance levels, and each thumbnail's answer."""
        embedded = embed_videos(model, self.workspace, self.examples)
        return measure(embedded, self.examples, self.split, self.parameters)

    def _metrics(self, model: SentenceTransformer) -> dict[str, float]:
        embedded = embed_videos(model, self.workspace, self.examples)
        rankings = embedded.rankings(self.texts, None)
        return metrics_of(embedded, rankings, self.parameters.recall_at)


class Embedded(NamedTuple):
    """Videos as a model embeds them: unit vectors, shape (videos, dimensions) each."""

    images: Embeddings
    titles: Embeddings
    negatives: Embeddings | None = None
    """None if there are no negative titles."""

    @classmethod
    def joined(cls, parts: Sequence[Self], order: NDArray[np.intp]) -> Self:
        """The videos of several parts in a new order: each the place of its row."""
        images, titles, negatives = zip(*parts, strict=True)
        others = [each for each in negatives if each is not None]
        return cls(
            np.concatenate(images)[order],
            np.concatenate(titles)[order],
            np.concatenate(others)[order] if len(others) == len(parts) else None,
        )

    def rankings(
        self, texts: NDArray[np.intp], galleries: NDArray[np.intp] | None
    ) -> dict[str, Ranking]:
        """Prefix of `WAYS` → the rankings of all videos that way.

        Args:
            texts: number of each video's title, equal for equal titles, shape (videos,).
            galleries: equal numbers for videos that are ranked among each other; None: all are.
        """
        ways = ((self.images, self.titles), (self.titles, self.images))
        return {
            prefix: _rank_within(*way, texts, galleries)
            for prefix, way in zip(WAYS, ways, strict=True)
        }


def _rank_within(
    queries: Embeddings,
    candidates: Embeddings,
    texts: NDArray[np.intp],
    galleries: NDArray[np.intp] | None,
) -> Ranking:
    if galleries is None:
        return rank_candidates(queries, candidates, texts, texts)
    order, parts = [], []
    for gallery in np.unique(galleries):
        rows = np.flatnonzero(galleries == gallery)
        found = rank_candidates(queries[rows], candidates[rows], texts[rows], texts[rows])
        order.append(rows)
        parts.append(found._replace(top=rows[found.top]))
    back = np.argsort(np.concatenate(order))
    return Ranking(*(np.concatenate(part)[back] for part in zip(*parts, strict=True)))


def embed_videos(
    reader: SentenceTransformer, workspace: Workspace, examples: Sequence[Example]
) -> Embedded:
    """Embed the pictures, titles and, if all have one, negative titles of examples."""
    titles = [example.title for example in examples]
    negatives = [example.title_neg for example in examples if example.title_neg]
    images, vectors = embed_examples(reader, workspace, examples, titles + negatives)
    own, others = vectors[: len(titles)], vectors[len(titles) :]
    return Embedded(images, own, others if len(others) == len(own) else None)


def metrics_of(
    embedded: Embedded, rankings: dict[str, Ranking], recall_at: Sequence[int]
) -> dict[str, float]:
    """The metrics of rankings both ways and of triplets, by their short names."""
    metrics: dict[str, float] = {}
    for prefix, ranking in rankings.items():
        metrics |= ranking_metrics(ranking.rank, recall_at, prefix)
    if embedded.negatives is not None:
        images = embedded.images
        right = (images * embedded.titles).sum(axis=1) > (images * embedded.negatives).sum(axis=1)
        metrics[TRIPLETS.name] = float(right.mean())
    return metrics


def measure(
    embedded: Embedded,
    examples: Sequence[Example],
    split: str,
    parameters: EvaluationParameters,
    galleries: NDArray[np.intp] | None = None,
) -> tuple[SplitEvaluation, list[Prediction]]:
    """The metrics of embedded videos with their intervals and chance, and each thumbnail's answer.

    Args:
        split: what they are called.
        galleries: equal numbers for videos that are ranked among each other; None: all are.
    """
    texts = number_titles([example.title for example in examples])
    groups = number_groups(examples)
    rankings = embedded.rankings(texts, galleries)
    recall_at = parameters.recall_at
    expected, gallery = chance_within(texts, galleries, recall_at)
    intervals: dict[str, Interval] = {}
    for prefix, ranking in rankings.items():
        intervals |= ranking_intervals(ranking.rank, recall_at, prefix, groups)
    evaluation = SplitEvaluation(
        rows=len(examples),
        gallery=gallery,
        metrics=metrics_of(embedded, rankings, recall_at),
        intervals=intervals,
        chance={f"{prefix}{name}": value for prefix in WAYS for name, value in expected.items()},
    )
    return evaluation, _predictions(split, rankings[""], examples)


def chance_within(
    texts: NDArray[np.intp], galleries: NDArray[np.intp] | None, recall_at: Sequence[int]
) -> tuple[dict[str, float], float]:
    """What a random ranking gets, and how many titles a thumbnail is ranked among; on average."""
    rows = len(texts)
    parts = [texts]
    if galleries is not None:
        parts = [texts[galleries == gallery] for gallery in np.unique(galleries)]
    expected: dict[str, float] = {}
    for part in parts:
        for name, value in random_rank_metrics(number_again(part), recall_at).items():
            expected[name] = expected.get(name, 0.0) + value * len(part) / rows
    return expected, sum(len(part) ** 2 for part in parts) / rows


def number_again(texts: NDArray[np.intp]) -> NDArray[np.intp]:
    """The same with numbers from 0 up that leave none out."""
    _, numbers = np.unique(texts, return_inverse=True)
    return numbers


def _predictions(split: str, ranking: Ranking, examples: Sequence[Example]) -> list[Prediction]:
    return [
        Prediction(
            split=split,
            video_id=example.id,
            rank=int(ranking.rank[row]),
            similarity=float(ranking.similarity[row]),
            top_title=examples[int(ranking.top[row])].title,
            top_similarity=float(ranking.top_similarity[row]),
        )
        for row, example in enumerate(examples)
    ]


def evaluate_model(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: EvaluationParameters,
    precision: Precision,
    in_folds: bool,
    seed: int,
) -> Evaluation:
    """Measure one model on every split of a table of `Example`, or on all videos in their folds.

    Args:
        fragments: of the names of the parameters that were or will be trained; what is frozen
            has its features stored.
        precision: of the stored features.
        in_folds: each video is ranked among those of its fold. Of a model that has learned from
            some of them this tells something about the others alone.
    """
    loaded = load_model(model, workspace)
    set_trainable(loaded, fragments)
    rows = workspace.read_table(examples, Example)
    reader, _ = head_of(workspace, loaded, rows, precision)
    if in_folds:
        embedded = embed_videos(reader, workspace, rows)
        galleries = fold_numbers(rows, seed)
        return kept(workspace, model, {OUT_OF_FOLD: (embedded, rows, galleries)}, parameters)
    parts = {name: [row for row in rows if row.split == name] for name in SPLITS}
    measured: dict[str, Measured] = {
        name: (embed_videos(reader, workspace, part), part, None) for name, part in parts.items()
    }
    return kept(workspace, model, measured, parameters)


Measured = tuple[Embedded, Sequence[Example], NDArray[np.intp] | None]
"""Embedded videos, the videos, and the gallery of each as in `measure`."""


def kept(
    workspace: Workspace,
    model: ModelReference,
    parts: Mapping[str, Measured],
    parameters: EvaluationParameters,
) -> Evaluation:
    """The measures of embedded videos, their answers kept.

    Args:
        parts: name of a split → its videos.
    """
    splits: dict[str, SplitEvaluation] = {}
    predictions: list[Prediction] = []
    for split, (embedded, rows, galleries) in parts.items():
        splits[split], answers = measure(embedded, rows, split, parameters, galleries)
        predictions += answers
        metrics = splits[split].metrics.items()
        told = ", ".join(f"{name} {value:.3f}" for name, value in metrics if "-" not in name)
        logger.info("%s on %s (%d rows): %s", model.name, split, len(rows), told)
    stored = workspace.write_table("predictions", predictions)
    return Evaluation(model=model, splits=splits, predictions=stored)
