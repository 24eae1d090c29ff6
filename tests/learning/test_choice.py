"""The choice of a recipe: in folds, and anew for each fold of a cross-fit."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.small_channel import make_examples
from thumbtune.clip.models import find_model
from thumbtune.data.splits import fold_numbers
from thumbtune.data.thumbnails import Example
from thumbtune.learning import choice as choices
from thumbtune.learning.candidates import UNTOUCHED, Candidate, given_candidate
from thumbtune.learning.choice import Learner
from thumbtune.learning.closed_form import ClosedForm
from thumbtune.learning.evaluation import embed_videos
from thumbtune.learning.recipes import RecipeTrainer
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace

CLOSED = Candidate(name="closed form", start=ClosedForm(ridge=0.3, prior=0.2))
PARAMETERS = TrainParameters.model_validate(
    {
        "source": "sample",
        "negatives": {"method": "random"},
        "training": {"epochs": 1, "learning_rate": 1e-3},
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("choice"))


@pytest.fixture(scope="module")
def rows(place: Workspace) -> list[Example]:
    return make_examples(place, 60)


def learner(place: Workspace, rows: list[Example], folds: NDArray[np.intp]) -> Learner:
    trainer = RecipeTrainer(place, find_model("sample"), None, rows, PARAMETERS, "float32")
    return Learner(trainer, rows, folds)


def test_what_belongs_together_is_in_one_fold(rows: list[Example]) -> None:
    joined = list(rows)
    for start in range(0, 60, 3):  # the second has the first one's title, the third its picture
        first = rows[start]
        joined[start + 1] = rows[start + 1].model_copy(update={"title": f" {first.title.upper()}"})
        same = {"image": first.image, "crop": first.crop, "title": f"Another {start}"}
        joined[start] = first.model_copy(update={"title": f"{first.title} "})
        joined[start + 2] = rows[start + 2].model_copy(update=same)
    folds = fold_numbers(joined, 7)
    for start in range(0, 60, 3):
        assert len(set(folds[start : start + 3].tolist())) == 1
    assert np.bincount(folds).min() >= 6


def poisoned(rows: list[Example], folds: NDArray[np.intp], fold: int) -> list[Example]:
    """The videos of a fold with one another's pictures and titles of elsewhere."""
    held_out = np.flatnonzero(folds == fold)
    others = np.flatnonzero(folds != fold)
    changed = list(rows)
    for place, row in enumerate(held_out):
        picture = rows[held_out[(place + 5) % len(held_out)]]
        title = rows[others[place]].title
        changed[row] = rows[row].model_copy(
            update={"image": picture.image, "crop": picture.crop, "title": title}
        )
    return changed


def test_a_choice_looks_at_nothing_of_the_fold_that_is_left_out(
    place: Workspace, rows: list[Example]
) -> None:
    folds = fold_numbers(rows, 0)
    for fold in (0, 3):
        whole, spoiled = (
            learner(place, each, folds) for each in (rows, poisoned(rows, folds, fold))
        )
        out = frozenset({fold})
        assert spoiled.choose(out) == whole.choose(out)
        assert spoiled.choose() != whole.choose()  # so the poison is one


def test_a_video_is_embedded_by_a_model_that_has_not_learned_from_it(
    place: Workspace, rows: list[Example]
) -> None:
    folds = fold_numbers(rows, 0)
    crossed = learner(place, rows, folds).cross_fit(CLOSED)
    for fold in (1, 4):
        trainer = RecipeTrainer(place, find_model("sample"), None, rows, PARAMETERS, "float32")
        known = [row for row, own in zip(rows, folds, strict=True) if own != fold]
        model = trainer.do(CLOSED, known)
        held_out = [row for row, own in zip(rows, folds, strict=True) if own == fold]
        expected = embed_videos(model, place, held_out)
        assert np.allclose(crossed.chosen.images[folds == fold], expected.images, atol=1e-6)
        assert np.allclose(crossed.chosen.titles[folds == fold], expected.titles, atol=1e-6)


def test_a_given_recipe_learns_no_title_of_the_fold_that_is_left_out(
    place: Workspace, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = fold_numbers(rows, 0)
    asked = learner(place, rows, folds)
    seen: list[list[Example]] = []
    do = asked.trainer.do

    def watched(candidate: Candidate, learned: list[Example]):  # type: ignore[no-untyped-def]
        seen.append(learned)
        return do(candidate, learned)

    monkeypatch.setattr(asked.trainer, "do", watched)
    asked.cross_fit(given_candidate(asked.trainer.base))
    trained = [learned for learned in seen if all(row.title_neg for row in learned)]
    assert len(trained) == 10  # five of the article's recipe, five of the given one
    for learned in trained:
        missing = {row.title for row in rows} - {row.title for row in learned}
        assert missing
        assert not missing & {row.title_neg for row in learned}


def test_of_a_cross_fit_each_candidate_is_trained_once_for_each_two_folds(
    place: Workspace, rows: list[Example]
) -> None:
    asked = learner(place, rows, fold_numbers(rows, 0))
    asked.choose()
    for fold in range(5):
        asked.choose(frozenset({fold}))
    given = given_candidate(asked.trainer.base)
    trainings = [out for candidate, out in asked._gains if candidate == given]
    assert len(trainings) == 15 == len(set(trainings))


def test_the_untouched_model_stays_unless_a_recipe_beats_it_by_a_standard_error(
    place: Workspace, rows: list[Example]
) -> None:
    stayed = set()
    for seed in range(4):  # titles that tell nothing of their pictures
        order = np.random.default_rng(seed).permutation(len(rows))
        strange = [
            row.model_copy(update={"title": rows[other].title})
            for row, other in zip(rows, order, strict=True)
        ]
        made = learner(place, strange, fold_numbers(strange, seed)).choose()
        best = max(made.tried, key=lambda each: each.mrr)
        assert (made.taken == UNTOUCHED) == (best.above <= best.error)
        stayed.add(made.taken == UNTOUCHED)
    assert True in stayed


def test_where_there_is_much_to_learn_a_recipe_is_taken(
    place: Workspace, rows: list[Example]
) -> None:
    made = learner(place, rows, fold_numbers(rows, 0)).choose()
    assert made.taken.start or made.taken.full_batches
    assert made.why == "does best in 5 folds"
    names = [each.candidate.name for each in made.tried]
    assert names == [
        "untouched",
        "the given hyperparameters",
        "closed form",
        "closed form, then the ranking loss",
        "the ranking loss on full batches",
    ]


def test_a_recipe_that_diverges_is_not_taken(place: Workspace, rows: list[Example]) -> None:
    wild = PARAMETERS.model_copy(
        update={"training": PARAMETERS.training.model_copy(update={"learning_rate": 1.0})}
    )
    trainer = RecipeTrainer(place, find_model("sample"), None, rows, wild, "float32")
    made = Learner(trainer, rows, fold_numbers(rows, 0)).choose()
    assert made.taken != given_candidate(trainer.base)


def test_a_large_channel_tries_no_full_batches(
    place: Workspace, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "MOST_AT_ONCE", 59)
    made = learner(place, rows, fold_numbers(rows, 0)).choose()
    assert all(each.candidate.full_batches is None for each in made.tried)


def test_a_choice_begins_with_the_untouched_model_whatever_was_trained_before(
    place: Workspace, rows: list[Example]
) -> None:
    folds = fold_numbers(rows, 0)
    fresh = learner(place, rows, folds).choose()
    trainer = RecipeTrainer(place, find_model("sample"), None, rows, PARAMETERS, "float32")
    trainer.do(CLOSED, rows)
    assert Learner(trainer, rows, folds).choose() == fresh
