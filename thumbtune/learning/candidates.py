"""Candidates: what may be done to a channel's CLIP, and one of them done to stored features."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer

from thumbtune.clip.features import reads_features
from thumbtune.data.thumbnails import Example
from thumbtune.learning.closed_form import ClosedForm, Whitened, fold, maps_of
from thumbtune.learning.full_batches import FullBatches, train_on_all
from thumbtune.learning.pooled import Pooled, end_of
from thumbtune.parameters import NegativesParameters, TrainingParameters


class Recipe(BaseModel):
    """How to train with sentence-transformers."""

    model_config = ConfigDict(frozen=True)

    training: TrainingParameters
    negatives: NegativesParameters


class Candidate(BaseModel):
    """What may be done to the untouched model: its parts one after the other, or nothing."""

    model_config = ConfigDict(frozen=True)

    name: str
    """In words, as reports have it."""
    start: ClosedForm | None = None
    full_batches: FullBatches | None = None
    recipe: Recipe | None = None
    """What sentence-transformers' Trainer is asked."""

    @property
    def changes_nothing(self) -> bool:
        """Whether it is the untouched model."""
        return self.start is None and self.full_batches is None and self.recipe is None

    @property
    def told(self) -> str:
        """With its hyperparameters, for a log."""
        parts = [f"ridge {self.start.ridge:g}, prior {self.start.prior:g}"] if self.start else []
        if self.full_batches:
            parts.append(f"{self.full_batches.steps} full batches")
        if self.recipe:
            training = self.recipe.training
            parts.append(f"{training.epochs} epochs at {training.learning_rate:g}")
        return f"{self.name} ({'; '.join(parts)})" if parts else self.name


UNTOUCHED = Candidate(name="untouched")


ARTICLE = TrainingParameters()
SEARCHED = ("learning_rate", "epochs", "batch_size", "scale", "symmetric", "interpolation")
"""What the article chose by hand and a sweep searches, beside the method of the negatives."""


def given_candidate(base: Recipe) -> Candidate:
    """What the parameters of a run say."""
    return Candidate(name="the given hyperparameters", recipe=base)


def article_recipe(base: Recipe, compares_titles: bool) -> Recipe:
    """The article's hyperparameters, negatives and last epoch; the rest is as in the base.

    Negatives that came with the videos stay, and without a text model the base's own: nobody who
    asks for others waits for the download of one.

    Args:
        compares_titles: whether there is a text model.
    """
    values = {name: getattr(ARTICLE, name) for name in SEARCHED} | {"keep_best_epoch": False}
    training, negatives = base.training.model_copy(update=values), base.negatives
    if compares_titles and negatives.method != "given":
        negatives = negatives.model_copy(update={"method": "least_similar"})
    return Recipe(training=training, negatives=negatives)


def article_candidate(recipe: Recipe) -> Candidate:
    """What `article_recipe` makes of a run's parameters."""
    return Candidate(name="the article's recipe", recipe=recipe)


def begin(model: SentenceTransformer, candidate: Candidate, learned: Sequence[Example]) -> None:
    """Do all of a candidate that goes before the Trainer to a head on stored features, in place."""
    if candidate.start or candidate.full_batches:
        head = end_of(model)
        pooled = Pooled.of(model, learned)
        maps = maps_of(head)
        if candidate.start:
            maps = Whitened(pooled.outputs, maps.maps, head.lowered).solve(candidate.start)
        if candidate.full_batches:
            (maps,) = train_on_all([maps], [pooled], candidate.full_batches)
        fold(maps, head)


def has_maps_to_train(model: SentenceTransformer) -> bool:
    """Whether a model is a head on stored features whose last maps may both be trained."""
    if not reads_features(model):
        return False
    head = end_of(model)
    return head.ends_in_maps and all(end.linear.weight.requires_grad for end in head.ends.values())
