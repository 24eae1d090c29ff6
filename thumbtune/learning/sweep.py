"""Search hyperparameters by validation; at the end, measure the choice on test."""

import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sklearn.model_selection import GroupKFold
from tqdm import tqdm

from thumbtune.clip.features import head_of
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import load_model
from thumbtune.clip.towers import Precision
from thumbtune.data.negatives import pair_titles
from thumbtune.data.thumbnails import Example
from thumbtune.learning.evaluation import NotFiniteError, RecallEvaluator, article_key, embed_titles
from thumbtune.learning.training import fine_tune
from thumbtune.learning.weights import set_parameters, trainable_parameters
from thumbtune.metrics import DECIDING, PRIMARY
from thumbtune.parameters import (
    NegativesParameters,
    SearchParameters,
    TrainingParameters,
    TrainParameters,
)
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace, fingerprint
from thumbtune.text.titles import number_titles

logger = logging.getLogger(__name__)

SMALL = 500  # videos of train and valid; one validation split of fewer is too noisy
FOLDS = 5
ARTICLE = TrainingParameters()
SEARCHED = ("learning_rate", "epochs", "batch_size", "scale", "symmetric", "interpolation")
"""Of the training parameters; beside them the method of the negatives."""
BATCH_SIZES = (8, 16, 32, 64)
METHODS = ("least_similar", "hard", "random", "none")


class Recipe(BaseModel):
    """How to train: what a trial sets, and what it leaves."""

    model_config = ConfigDict(frozen=True)

    training: TrainingParameters
    negatives: NegativesParameters


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

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether the trials are still there."""
        return self.trials.is_whole(workspace)


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
        self.workspace, self.parameters = workspace, parameters
        self.base = Recipe(training=parameters.training, negatives=parameters.negatives)
        loaded = load_model(model, workspace)
        freeze(loaded, parameters.training.trainable)
        self.head, _ = head_of(workspace, loaded, examples, precision)
        self.untouched = trainable_parameters(self.head)
        self.embed = _title_embedder(text_model, examples)

    def with_negatives(
        self, examples: Sequence[Example], parameters: NegativesParameters
    ) -> list[Example]:
        """The rows with negatives mined anew."""
        pairs = pair_titles(examples, parameters, self.parameters.seed, self.embed)
        return [
            row.model_copy(update={"title_neg": pair.title_neg})
            for row, pair in zip(examples, pairs, strict=True)
        ]

    def train(
        self, examples: Sequence[Example], training: TrainingParameters, seed: int
    ) -> SentenceTransformer:
        """Train from the untouched weights on the rows of `train`, validate on those of `valid`."""
        set_parameters(self.head, self.untouched)
        train, valid = (
            [row for row in examples if row.split == split] for split in ("train", "valid")
        )
        evaluation = self.parameters.evaluation
        fine_tune(self.head, self.workspace, train, valid, training, evaluation, seed)
        return self.head

    def measure(
        self, model: SentenceTransformer, examples: Sequence[Example], split: str
    ) -> dict[str, float]:
        """The metrics of a model on one split, by their short names."""
        rows = [row for row in examples if row.split == split]
        metrics = RecallEvaluator(self.workspace, rows, split, self.parameters.evaluation)(model)
        return {name: metrics[article_key(split, name)] for name in DECIDING}


def _title_embedder(
    text_model: ModelReference | None, examples: Sequence[Example]
) -> Callable[[list[str]], NDArray[np.float32]]:
    """Looks titles up that were embedded once; without a text model nothing asks for it."""
    vectors = {}
    if text_model:
        titles = list(dict.fromkeys(example.title for example in examples))
        vectors = dict(zip(titles, embed_titles(load_model(text_model), titles), strict=True))
    return lambda asked: np.stack([vectors[title] for title in asked])


def folds_of(examples: Sequence[Example], folds: int, seed: int) -> list[list[Example]]:
    """The rows of train and valid, each time with another part as `valid`.

    Equal titles stay together. With one fold the splits are as they are.
    """
    rows = [row for row in examples if row.split != "test"]
    if folds == 1:
        return [rows]
    titles = number_titles([row.title for row in rows])
    parts = GroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups=titles)
    return [
        [
            row.model_copy(update={"split": "valid" if place in valid else "train"})
            for place, row in enumerate(rows)
        ]
        for valid in (set(held_out.tolist()) for _, held_out in parts)
    ]


def folds_for(examples: Sequence[Example], wanted: int | None) -> int:
    """As many as wanted; if none are named, `FOLDS` for a small channel."""
    rows = sum(example.split != "test" for example in examples)
    return wanted or (FOLDS if rows < SMALL else 1)


def suggest(trial: optuna.Trial, base: Recipe) -> Recipe:
    """A recipe from the search space; what is not searched is as in the base.

    It trains to its last epoch: one that picked its epoch on the videos that score it would score
    too well, and the more epochs, the better.
    """
    methods = METHODS if base.negatives.method != "given" else ("given", "none")
    training = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "epochs": trial.suggest_int("epochs", 1, 30, log=True),
        "batch_size": trial.suggest_categorical("batch_size", BATCH_SIZES),
        "scale": trial.suggest_float("scale", 5, 100, log=True),
        "symmetric": trial.suggest_categorical("symmetric", (False, True)),
        "interpolation": trial.suggest_float("interpolation", 0.1, 1.0),
        "keep_best_epoch": False,
    }
    negatives = {"method": trial.suggest_categorical("negatives", methods)}
    return Recipe(
        training=base.training.model_copy(update=training),
        negatives=base.negatives.model_copy(update=negatives),
    )


def article_recipe(base: Recipe) -> Recipe:
    """The article's hyperparameters and last epoch; what is not searched is as in the base."""
    values = {name: getattr(ARTICLE, name) for name in SEARCHED} | {"keep_best_epoch": False}
    method = "given" if base.negatives.method == "given" else "least_similar"
    return Recipe(
        training=base.training.model_copy(update=values),
        negatives=base.negatives.model_copy(update={"method": method}),
    )


def search(
    trainer: RecipeTrainer,
    examples: Sequence[Example],
    search: SearchParameters,
    journal: JournalStorage,
    name: str,
) -> tuple[Recipe, list[Trial]]:
    """Try recipes until there are as many as asked for; those of a killed run count.

    The score of a recipe is its validation MRR, mean over the folds.

    Args:
        examples: rows of train and valid; no row of test is seen here.
        journal: where trials are kept.
    """
    base = trainer.base
    seed = trainer.parameters.seed
    folds = folds_of(examples, folds_for(examples, search.folds), seed)

    @cache
    def fold_with_negatives(fold: int, negatives: NegativesParameters) -> list[Example]:
        return trainer.with_negatives(folds[fold], negatives)

    def score(trial: optuna.Trial) -> float:
        recipe = suggest(trial, base)
        scores = []
        for fold in range(len(folds)):
            rows = fold_with_negatives(fold, recipe.negatives)
            try:
                model = trainer.train(rows, recipe.training, seed)
                scores.append(trainer.measure(model, rows, "valid")[PRIMARY])
            except NotFiniteError:  # diverged
                return 0.0
        return statistics.mean(scores)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=journal,
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    first = article_recipe(base)
    known = {name: getattr(first.training, name) for name in SEARCHED}
    study.enqueue_trial({**known, "negatives": first.negatives.method}, skip_if_exists=True)
    done = (optuna.trial.TrialState.COMPLETE,)
    missing = search.trials - len(study.get_trials(states=done))
    for _ in tqdm(range(missing), desc="Trials", disable=not sys.stderr.isatty()):
        study.sampler = _sampler(seed, len(study.trials))
        study.optimize(score, n_trials=1)
    trials = study.get_trials(states=done)
    best = suggest(optuna.trial.FixedTrial(study.best_params), base)  # type: ignore[arg-type]
    return best, [
        Trial(number=trial.number, valid_mrr=trial.value, **trial.params) for trial in trials
    ]


def _sampler(seed: int, trial: int) -> optuna.samplers.TPESampler:
    """Draws one trial. Seeded by its number, a search that was cut off goes on as if it was not."""
    return optuna.samplers.TPESampler(seed=(seed + trial) % 2**32)


def compare(
    trainer: RecipeTrainer, examples: Sequence[Example], best: Recipe, seeds: int
) -> RecipeComparison:
    """Train the article's recipe and the best with several seeds each; here test is looked at."""
    recipes = {"the article's recipe": article_recipe(trainer.base), "the sweep's choice": best}
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


def search_recipe(
    workspace: Workspace,
    model: ModelReference,
    text_model: ModelReference | None,
    examples: Table,
    parameters: TrainParameters,
    options: SearchParameters,
    precision: Precision,
) -> Sweep:
    """Find the recipe that validates best on a table of `Example`; its test rows are not used.

    The trials are kept on this machine, at `sweeps/<key>/journal`, so a killed search goes on
    here where it stopped.
    """
    rows = workspace.read_table(examples, Example)
    trainer = RecipeTrainer(workspace, model, text_model, rows, parameters, precision)
    folds = folds_for(rows, options.folds)
    logger.info("Searching with %d trials, %d folds each", options.trials, folds)
    settings = trainer.base.model_dump_json() + parameters.evaluation.model_dump_json()
    marks = (model.fingerprint, text_model.fingerprint if text_model else "", examples.fingerprint)
    key = fingerprint(*marks, settings, f"{parameters.seed} {folds} {precision}")[:16]
    journal = workspace.root / "sweeps" / key / "journal"
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    known = [row for row in rows if row.split != "test"]
    best, trials = search(trainer, known, options, storage, key)
    score = max(trial.valid_mrr for trial in trials)
    logger.info("Best validation MRR %.3f: %s", score, best.training)
    return Sweep(
        folder=f"sweeps/{key}",
        best=best,
        best_valid_mrr=score,
        folds=folds,
        trials=workspace.write_table("trials", trials),
    )
