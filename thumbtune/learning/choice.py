"""Choose by evidence: each candidate in folds, on videos that it has not learned from.

A choice among several looks better on what chose it than it is, so a cross-fit chooses anew for
each fold, within the others (nested cross-validation: Varma and Simon 2006,
doi:10.1186/1471-2105-7-91). A model that has left out folds 1 and 2 serves for both, so all that
takes only K (K + 1) / 2 trainings of a candidate.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer

from thumbtune.clip.ends import KINDS
from thumbtune.clip.features import title_key
from thumbtune.data.splits import number_groups
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import (
    UNTOUCHED,
    Candidate,
    article_candidate,
    given_candidate,
    has_maps_to_train,
)
from thumbtune.learning.closed_form import ClosedForm, Maps, Whitened, maps_of
from thumbtune.learning.evaluation import Embedded, NotFiniteError, embed_videos
from thumbtune.learning.full_batches import FullBatches, train_on_all
from thumbtune.learning.grid import best_form
from thumbtune.learning.intervals import design_effect
from thumbtune.learning.pooled import Matrix, Pooled, end_of, pooled_of
from thumbtune.learning.recipes import RecipeTrainer
from thumbtune.metrics import PRIMARY, described
from thumbtune.progress import progress

logger = logging.getLogger(__name__)

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
PRIORS = (0.0, 0.2, 0.5, 0.8, 0.95)
"""With few pairs, or a CLIP that knows such pictures, the prior should weigh much."""
FORMS = [ClosedForm(ridge=ridge, prior=prior) for ridge, prior in product(RIDGES, PRIORS)]

FROM_UNTOUCHED = FullBatches(steps=30, pace=0.03)
FROM_CLOSED_FORM = FullBatches(steps=20, pace=0.01)
"""More steps at a lower pace take longer, and gain nothing: docs/benchmarks.md, Quality."""

MOST_AT_ONCE = 1000
"""Pairs of a full batch: its similarities and what Adam does with them take seconds beyond."""

MOST_KEPT = 10_000
"""Videos of which embeddings are kept for a cross-fit: 60 MB a candidate at 768 dimensions."""

Out = frozenset[int]
"""Numbers of folds that are left out."""


class Tried(BaseModel):
    """A candidate, and how it did in the folds."""

    model_config = ConfigDict(frozen=True)

    candidate: Candidate
    mrr: float
    """Mean over the videos, each ranked in its fold; 0 if the training diverged."""
    above: float
    """MRR above the untouched model's."""
    error: float
    """Standard error of that, paired, over groups of videos that belong together."""


class Choice(BaseModel):
    """The candidates, and which of them is taken."""

    model_config = ConfigDict(frozen=True)

    taken: Candidate
    tried: list[Tried]
    """The best one of each kind, in the order of the list of candidates."""
    why: str


class CrossFit(NamedTuple):
    """Every video by a model of its fold's, for each of three ways to train."""

    galleries: NDArray[np.intp]
    """Number of each video's fold, shape (videos,)."""
    untouched: Embedded
    article: Embedded
    chosen: Embedded


class Learner:
    """Candidates on one channel's stored features, each with some folds left out.

    Args:
        examples: the videos that may be learned from.
        folds: the fold of each, from 0 up, shape (videos,).
        others: what else is tried, such as the last sweep's choice.
    """

    def __init__(
        self,
        trainer: RecipeTrainer,
        examples: Sequence[Example],
        folds: NDArray[np.intp],
        others: Sequence[Candidate] = (),
    ) -> None:
        self.trainer, self.examples, self.folds, self.others = trainer, examples, folds, others
        self.numbers = list(range(int(folds.max()) + 1))
        trainer.do(UNTOUCHED, examples)  # it has one head, which another may have trained
        self.pooled = Pooled.of(trainer.head, examples)
        self.negatives = _pooled_negatives(trainer.head, examples)
        self.untouched = maps_of(end_of(trainer.head))
        self.lowered = end_of(trainer.head).lowered
        self.trains = has_maps_to_train(trainer.head)
        self._solved: dict[tuple[ClosedForm, Out], Maps] = {}
        self._gains: dict[tuple[Candidate, Out], NDArray[np.float64]] = {}
        self._out_of_fold: dict[tuple[Candidate, Out], Embedded] = {}
        """The videos of the one fold that was left out."""

    def candidates(self, out: Out) -> list[Candidate]:
        """What is tried with some folds left out, of the closed form its best ridge and prior."""
        candidates = [UNTOUCHED, given_candidate(self.trainer.base), *self.others]
        if not self.trains:
            return candidates
        known, folds = self._known(out), self.folds[self._learned(out)]
        start = best_form(FORMS, known, folds, self.untouched, self.lowered)
        candidates.append(Candidate(name="closed form", start=start))
        if len(self.examples) <= MOST_AT_ONCE:
            polished = Candidate(
                name="closed form, then the ranking loss",
                start=start,
                full_batches=FROM_CLOSED_FORM,
            )
            full = Candidate(name="the ranking loss on full batches", full_batches=FROM_UNTOUCHED)
            candidates += [polished, full]
        return candidates

    def choose(self, out: Out = frozenset()) -> Choice:
        """Choose by the folds that are not left out; nothing of the others is looked at.

        The untouched model is taken unless the best one beats it by more than a standard error.
        """
        groups = number_groups(self._some(np.flatnonzero(self._learned(out))))
        tried = [self._tried(candidate, out, groups) for candidate in self.candidates(out)]
        best_of_all = max(tried, key=lambda each: each.mrr)
        if best_of_all.above > best_of_all.error:
            why = f"does best in {len(self.numbers) - len(out)} folds"
            return Choice(taken=best_of_all.candidate, tried=tried, why=why)
        why = "kept: nothing beats it by more than one standard error"
        return Choice(taken=UNTOUCHED, tried=tried, why=why)

    def cross_fit(self, candidate: Candidate | None = None) -> CrossFit:
        """Each video by the model of its fold, which has not learned from it.

        Args:
            candidate: what is done in each fold; None: what is chosen within the others.
        """
        article = article_candidate(self.trainer.article)
        outs = [frozenset({fold}) for fold in self.numbers]
        taken = []
        with progress("Choosing a recipe in each fold", len(outs)) as advance:
            for out in outs:
                taken.append(candidate or self.choose(out).taken)
                advance(1)
        return CrossFit(
            galleries=self.folds,
            untouched=self._assembled([UNTOUCHED] * len(outs)),
            article=self._assembled([article] * len(outs)),
            chosen=self._assembled(taken),
        )

    def _tried(self, candidate: Candidate, out: Out, groups: NDArray[np.intp]) -> Tried:
        """On the videos of the folds that are not left out, of which these are the groups."""
        gains = self._all_gains(candidate, out)
        difference = gains - self._all_gains(UNTOUCHED, out)
        effect = design_effect(difference, groups)
        error = np.sqrt(difference.var(ddof=1) / len(difference) * effect)
        above = float(difference.mean())
        return Tried(candidate=candidate, mrr=gains.mean(), above=above, error=error)

    def _all_gains(self, candidate: Candidate, out: Out) -> NDArray[np.float64]:
        """Of each video that is not left out, by the model that left out its fold too."""
        without = frozenset() if candidate.changes_nothing else out
        outs = {fold: without | {fold} for fold in self.numbers if fold not in out}
        done = _nameless(candidate)
        self._learn(candidate, [each for each in outs.values() if (done, each) not in self._gains])
        gains = np.zeros(len(self.examples))
        for fold, each in outs.items():
            gains[self._rows(fold)] = self._gains[done, each][self._rows(fold)]
        return gains[self._learned(out)]

    def _learn(self, candidate: Candidate, outs: Sequence[Out]) -> None:
        """Keep the gains of the folds that were left out each time, in the places of their videos.

        A Trainer's recipe changes the one head that there is, so it is scored before the next.
        """
        for out, embed in zip(outs, self._taught(candidate, outs), strict=True):
            gains = np.zeros(len(self.examples))
            try:
                for fold in out:
                    rows, embedded = self._rows(fold), embed(fold)
                    rank = embedded.rankings(self.pooled.texts[rows], None)[""].rank
                    gains[rows] = described(PRIMARY).metric.gain(rank)
                    if len(out) == 1:
                        self._keep(candidate, out, embedded)
            except NotFiniteError:  # diverged
                logger.warning("%s diverges", candidate.told)
            self._gains[_nameless(candidate), out] = gains

    def _taught(
        self, candidate: Candidate, outs: Sequence[Out]
    ) -> Iterator[Callable[[int], Embedded]]:
        """What embeds the videos of a fold, after learning from all folds but those of each out."""
        if self.trains and candidate.recipe is None:
            yield from (partial(self._by, maps) for maps in self._maps(candidate, outs))
        else:
            yield from (partial(self._by_model, self._trained(candidate, out)) for out in outs)

    def _trained(self, candidate: Candidate, out: Out) -> SentenceTransformer:
        """With negatives that are mined among the rows that are learned from."""
        rows = self._some(np.flatnonzero(self._learned(out)))
        if candidate.recipe:
            negatives = candidate.recipe.negatives
            if negatives.method == "given":  # they may be of a fold that was left out
                negatives = negatives.model_copy(update={"method": "none"})
            of_train = [row.model_copy(update={"split": "train"}) for row in rows]
            rows = self.trainer.with_negatives(of_train, negatives)
        return self.trainer.do(candidate, rows)

    def _maps(self, candidate: Candidate, outs: Sequence[Out]) -> list[Maps]:
        maps = [self.untouched] * len(outs)
        if candidate.start:
            maps = [self._closed_form(candidate.start, out) for out in outs]
        if candidate.full_batches and outs:
            maps = train_on_all(maps, [self._known(out) for out in outs], candidate.full_batches)
        return maps

    def _closed_form(self, form: ClosedForm, out: Out) -> Maps:
        if (form, out) not in self._solved:
            white = Whitened(self._known(out).outputs, self.untouched.maps, self.lowered)
            self._solved[form, out] = white.solve(form)
        return self._solved[form, out]

    def _known(self, out: Out) -> Pooled:
        return self.pooled.some(np.flatnonzero(self._learned(out)))

    def _by(self, maps: Maps, fold: int) -> Embedded:
        rows = self._rows(fold)
        outputs = self.pooled.some(rows).outputs
        images, titles = (_unit(maps.embed(kind, outputs[kind])) for kind in KINDS)
        if self.negatives is None:
            return Embedded(images, titles)
        return Embedded(images, titles, _unit(maps.embed("text", self.negatives[rows])))

    def _by_model(self, model: SentenceTransformer, fold: int) -> Embedded:
        return embed_videos(model, self.trainer.workspace, self._some(self._rows(fold)))

    def _assembled(self, candidates: Sequence[Candidate]) -> Embedded:
        """All videos, those of each fold by its candidate, which has learned from all others."""
        parts = [
            self._embedded(candidate, fold)
            for fold, candidate in zip(self.numbers, candidates, strict=True)
        ]
        back = np.argsort(np.concatenate([self._rows(fold) for fold in self.numbers]))
        return Embedded.joined(parts, back)

    def _embedded(self, candidate: Candidate, fold: int) -> Embedded:
        out = frozenset({fold})
        if known := self._out_of_fold.get((_nameless(candidate), out)):
            return known
        (embed,) = self._taught(candidate, [out])
        embedded = embed(fold)
        self._keep(candidate, out, embedded)
        return embedded

    def _keep(self, candidate: Candidate, out: Out, embedded: Embedded) -> None:
        if len(self.examples) <= MOST_KEPT:
            self._out_of_fold[_nameless(candidate), out] = embedded

    def _rows(self, fold: int) -> NDArray[np.intp]:
        return np.flatnonzero(self.folds == fold)

    def _learned(self, out: Out) -> NDArray[np.bool_]:
        return ~np.isin(self.folds, list(out))

    def _some(self, rows: NDArray[np.intp]) -> list[Example]:
        return [self.examples[row] for row in rows]


def _pooled_negatives(head: SentenceTransformer, examples: Sequence[Example]) -> Matrix | None:
    """As `Pooled` has titles, shape (videos, width); None unless all have a negative title."""
    titles = [example.title_neg for example in examples if example.title_neg]
    if len(titles) < len(examples):
        return None
    return pooled_of(end_of(head), list(map(title_key, titles))).cpu().double().numpy()


def _nameless(candidate: Candidate) -> Candidate:
    """What is done, by whatever name; no epoch is the best one where nothing validates."""
    recipe = candidate.recipe
    if recipe:
        training = recipe.training.model_copy(update={"keep_best_epoch": False})
        recipe = recipe.model_copy(update={"training": training})
    return candidate.model_copy(update={"name": "", "recipe": recipe})


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise NotFiniteError("The vectors are not finite.")
    return (vectors / np.maximum(lengths, np.finfo(float).tiny)).astype(np.float32)
