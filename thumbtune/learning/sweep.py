"""Search hyperparameters by validation; at the end, measure the choice on test."""

import logging
import statistics
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from thumbtune.clip.towers import Precision
from thumbtune.data.splits import fold_numbers
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import SEARCHED, Recipe
from thumbtune.learning.evaluation import NotFiniteError
from thumbtune.learning.recipes import RecipeTrainer, Sweep, Trial
from thumbtune.metrics import PRIMARY
from thumbtune.parameters import (
    FOLDS,
    SMALL,
    NegativesParameters,
    SearchParameters,
    TrainParameters,
)
from thumbtune.progress import progress
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace, fingerprint

if TYPE_CHECKING:  # of the extra `sweep`
    import optuna
    from optuna.storages import JournalStorage

logger = logging.getLogger(__name__)

BATCH_SIZES = (8, 16, 32, 64)
METHODS = ("least_similar", "hard", "clip", "random", "none")


def folds_of(examples: Sequence[Example], folds: int, seed: int) -> list[list[Example]]:
    """The rows of train and valid, each time with another part as `valid`.

    What belongs together stays together. With one fold the splits are as they are.
    """
    rows = [row for row in examples if row.split != "test"]
    if folds == 1:
        return [rows]
    numbers = fold_numbers(rows, seed, folds)
    return [
        [
            row.model_copy(update={"split": "valid" if number == fold else "train"})
            for row, number in zip(rows, numbers, strict=True)
        ]
        for fold in range(folds)
    ]


def folds_for(examples: Sequence[Example], wanted: int | None) -> int:
    """As many as wanted; if none are named, `FOLDS` for a small channel."""
    rows = sum(example.split != "test" for example in examples)
    return wanted or (FOLDS if rows < SMALL else 1)


def suggest(trial: "optuna.Trial", base: Recipe) -> Recipe:
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


def search(
    trainer: RecipeTrainer,
    examples: Sequence[Example],
    search: SearchParameters,
    journal: "JournalStorage",
    name: str,
) -> tuple[Recipe, list[Trial]]:
    """Try recipes until there are as many as asked for; those of a killed run count.

    The score of a recipe is its validation MRR, mean over the folds.

    Args:
        examples: rows of train and valid; no row of test is seen here.
        journal: where trials are kept.
    """
    import optuna

    base = trainer.base
    seed = trainer.parameters.seed
    folds = folds_of(examples, folds_for(examples, search.folds), seed)

    @cache
    def fold_with_negatives(fold: int, negatives: NegativesParameters) -> list[Example]:
        return trainer.with_negatives(folds[fold], negatives)

    def score(trial: "optuna.Trial") -> float:
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
    first = trainer.article
    known = {name: getattr(first.training, name) for name in SEARCHED}
    study.enqueue_trial({**known, "negatives": first.negatives.method}, skip_if_exists=True)
    done = (optuna.trial.TrialState.COMPLETE,)
    missing = search.trials - len(study.get_trials(states=done))
    with progress("Trials", max(missing, 0)) as advance:
        for _ in range(missing):
            study.sampler = _sampler(seed, len(study.trials))
            study.optimize(score, n_trials=1)
            advance(1)
    trials = study.get_trials(states=done)
    best = suggest(optuna.trial.FixedTrial(study.best_params), base)  # type: ignore[arg-type]
    return best, [
        Trial(number=trial.number, valid_mrr=trial.value, **trial.params) for trial in trials
    ]


def _sampler(seed: int, trial: int) -> "optuna.samplers.TPESampler":
    """Draws one trial. Seeded by its number, a search that was cut off goes on as if it was not."""
    import optuna

    return optuna.samplers.TPESampler(seed=(seed + trial) % 2**32)


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
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    rows = workspace.read_table(examples, Example)
    trainer = RecipeTrainer(workspace, model, text_model, rows, parameters, precision)
    folds = folds_for(rows, options.folds)
    logger.info("Searching with %d trials, %d folds each", options.trials, folds)
    settings = trainer.base.model_dump_json() + parameters.evaluation.model_dump_json()
    settings += repr(METHODS)  # the choices of a study cannot change
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
        base=model.fingerprint,
        examples=examples,
    )
