"""Recipes: how to train, and how well that does with several seeds."""

import statistics
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from torch import Tensor
from tqdm import tqdm

from thumbtune.clip.features import head_of, reads_features
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.negatives import pair_titles
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import Candidate, Recipe, article_recipe, begin
from thumbtune.learning.evaluation import RecallEvaluator, article_key
from thumbtune.learning.pairing import pair_by_clip, with_negatives_of
from thumbtune.learning.pooled import end_of
from thumbtune.learning.title_vectors import title_vectors
from thumbtune.learning.training import fine_tune
from thumbtune.learning.weights import set_parameters, trainable_parameters
from thumbtune.learning.without_trainer import (
    fine_tune_projections,
    trains_projections_alone,
)
from thumbtune.metrics import DECIDING
from thumbtune.parameters import NegativesParameters, TrainingParameters, TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace


class Trial(BaseModel):
    """One recipe and how it validated."""

    model_config = ConfigDict(frozen=True)

    number: int
    valid_mrr: float
    """Mean over the folds, 0 if the training diverged."""
    learning_rate: float
    epochs: int
    batch_size: int
    scale: float
    symmetric: bool
    interpolation: float
    negatives: str


class Sweep(BaseModel):
    """The trials and the best of them."""

    model_config = ConfigDict(frozen=True)

    folder: str
    """Of this search, relative to the workspace."""
    best: Recipe
    best_valid_mrr: float
    folds: int
    trials: Table
    """Rows of `Trial`, in their order."""
    base: str
    """Fingerprint of the untouched model."""
    examples: Table
    """Rows of `Example`; at those of test nothing has looked."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether the trials and the examples are still there."""
        return self.trials.is_whole(workspace) and self.examples.is_whole(workspace)


class RecipeResult(BaseModel):
    """A recipe on the test split, once for each seed."""

    model_config = ConfigDict(frozen=True)

    name: str
    recall_at_1: list[float]
    mrr: list[float]

    @property
    def told(self) -> str:
        """Mean ± standard deviation of Recall@1."""
        spread = statistics.stdev(self.recall_at_1) if len(self.recall_at_1) > 1 else 0.0
        return f"{statistics.mean(self.recall_at_1):.3f} ± {spread:.3f}"


class RecipeComparison(BaseModel):
    """Untouched model, the article's recipe and the sweep's choice on the same test split."""

    model_config = ConfigDict(frozen=True)

    videos: int
    results: list[RecipeResult]

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: it points to no file."""
        return True


class RecipeTrainer:
    """One model and one channel on which recipe after recipe is trained from the same start.

    Args:
        examples: all rows that a recipe may meet; their features are stored once.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: ModelReference,
        text_model: ModelReference | None,
        examples: Sequence[Example],
        parameters: TrainParameters,
        precision: Precision,
    ) -> None:
        self.workspace, self.model, self.parameters = workspace, model, parameters
        self.base = Recipe(training=parameters.training, negatives=parameters.negatives)
        self.article = article_recipe(self.base, compares_titles=text_model is not None)
        loaded = load_model(model, workspace)
        set_trainable(loaded, parameters.training.trainable)
        self.head, _ = head_of(workspace, loaded, examples, precision)
        self.untouched = _what_may_change(self.head)
        self.embed = _title_embedder(workspace, text_model, examples)

    def with_negatives(
        self, examples: Sequence[Example], parameters: NegativesParameters
    ) -> list[Example]:
        """The rows with negatives mined anew."""
        if parameters.method == "clip":
            set_parameters(self.head, self.untouched)
            return pair_by_clip(self.head, self.workspace, examples, parameters)
        pairs = pair_titles(examples, parameters, self.parameters.seed, self.embed)
        return with_negatives_of(pairs, examples)

    def train(
        self, examples: Sequence[Example], training: TrainingParameters, seed: int
    ) -> SentenceTransformer:
        """Train from the untouched weights on the rows of `train`, validate on those of `valid`."""
        set_parameters(self.head, self.untouched)
        train, valid = (
            [row for row in examples if row.split == split] for split in ("train", "valid")
        )
        self._fine_tune(train, valid, training, seed)
        return self.head

    def do(self, candidate: Candidate, learned: Sequence[Example]) -> SentenceTransformer:
        """The untouched model after a candidate has learned from rows, to its last epoch."""
        set_parameters(self.head, self.untouched)
        begin(self.head, candidate, learned)
        if candidate.recipe:
            self._fine_tune(learned, [], candidate.recipe.training, self.parameters.seed)
        return self.head

    def _fine_tune(
        self,
        train: Sequence[Example],
        valid: Sequence[Example],
        training: TrainingParameters,
        seed: int,
    ) -> None:
        chooses_its_epoch = training.keep_best_epoch and len(valid) > 0
        if trains_projections_alone(self.head) and not chooses_its_epoch:
            fine_tune_projections(self.head, train, training, seed)
        else:
            evaluation = self.parameters.evaluation
            fine_tune(self.head, self.workspace, train, valid, training, evaluation, seed)

    def measure(
        self, model: SentenceTransformer, examples: Sequence[Example], split: str
    ) -> dict[str, float]:
        """The metrics of a model on one split, by their short names."""
        rows = [row for row in examples if row.split == split]
        metrics = RecallEvaluator(self.workspace, rows, split, self.parameters.evaluation)(model)
        return {name: metrics[article_key(split, name)] for name in DECIDING}


def _what_may_change(head: SentenceTransformer) -> dict[str, Tensor]:
    """Copies of the parameters that train, and of those that a closed form is folded into."""
    weights = trainable_parameters(head)
    if reads_features(head):
        folded = {id(bias) for bias in end_of(head).lowered.values()}
        named = head.named_parameters()
        weights |= {name: each.detach().clone() for name, each in named if id(each) in folded}
    return weights


def _title_embedder(
    workspace: Workspace, text_model: ModelReference | None, examples: Sequence[Example]
) -> Callable[[list[str]], NDArray[np.float32]]:
    """Looks titles up; all of them are read when the first are asked for."""

    @cache
    def known() -> dict[str, NDArray[np.float32]]:
        if text_model is None:
            return {}
        titles = list(dict.fromkeys(example.title for example in examples))
        return dict(zip(titles, title_vectors(workspace, text_model, titles), strict=True))

    return lambda asked: np.stack([known()[title] for title in asked])


def compare(
    trainer: RecipeTrainer, examples: Sequence[Example], best: Recipe, seeds: int
) -> RecipeComparison:
    """Train the article's recipe and the best with several seeds each; here test is looked at."""
    recipes = {"the article's recipe": trainer.article, "the sweep's choice": best}
    set_parameters(trainer.head, trainer.untouched)
    untouched = trainer.measure(trainer.head, examples, "test")
    results = [
        RecipeResult(name="untouched", recall_at_1=[untouched["Recall@1"]], mrr=[untouched["MRR"]])
    ]
    for name, recipe in recipes.items():
        rows = trainer.with_negatives(examples, recipe.negatives)
        measured = []
        for seed in tqdm(range(seeds), desc=f"Seeds of {name}", disable=None):
            model = trainer.train(rows, recipe.training, trainer.parameters.seed + seed)
            measured.append(trainer.measure(model, rows, "test"))
        results.append(
            RecipeResult(
                name=name,
                recall_at_1=[metrics["Recall@1"] for metrics in measured],
                mrr=[metrics["MRR"] for metrics in measured],
            )
        )
    videos = sum(example.split == "test" for example in examples)
    return RecipeComparison(videos=videos, results=results)
