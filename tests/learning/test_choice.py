"""The choice of a recipe: in folds, and anew for each fold of a cross-fit."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from tests.small_channel import make_examples
from thumbtune.clip.models import find_model
from thumbtune.data.splits import fold_numbers
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.learning import choice as choices
from thumbtune.learning.candidates import UNTOUCHED, Candidate, article_candidate, given_candidate
from thumbtune.learning.choice import Learner
from thumbtune.learning.choosing import plan_run
from thumbtune.learning.closed_form import ClosedForm
from thumbtune.learning.evaluation import embed_videos
from thumbtune.learning.recipes import RecipeTrainer
from thumbtune.parameters import TrainingParameters, TrainParameters
from thumbtune.sample import MODEL
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


def test_a_cross_fit_embeds_negative_titles_too(place: Workspace, rows: list[Example]) -> None:
    paired = [
        row.model_copy(update={"title_neg": other.title})
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    crossed = learner(place, paired, fold_numbers(paired, 0)).cross_fit(CLOSED)
    trainer = RecipeTrainer(place, find_model("sample"), None, paired, PARAMETERS, "float32")
    untouched = embed_videos(trainer.head, place, paired)
    assert untouched.negatives is not None
    assert crossed.untouched.negatives is not None
    assert crossed.chosen.negatives is not None
    assert np.allclose(crossed.untouched.negatives, untouched.negatives, atol=1e-6)
    assert np.allclose(crossed.untouched.titles, untouched.titles, atol=1e-6)


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


@pytest.mark.parametrize("method", ["none", "random", "hard", "clip"])
def test_the_articles_recipe_is_the_articles_whatever_negatives_a_run_asks_for(
    place: Workspace, rows: list[Example], method: str
) -> None:
    asked = {"method": method, "text_model": "sample", "ceiling": 0.99}
    negatives = PARAMETERS.negatives.model_validate(asked)
    base, text_model = PARAMETERS.model_copy(update={"negatives": negatives}), find_model("sample")
    trainer = RecipeTrainer(place, text_model, text_model, rows, base, "float32")
    article = Learner(trainer, rows, fold_numbers(rows, 0)).cross_fit(UNTOUCHED).article
    as_asked = base.model_copy(
        update={"negatives": negatives.model_copy(update={"method": "least_similar"})}
    )
    trainer = RecipeTrainer(place, text_model, text_model, rows, as_asked, "float32")
    expected = Learner(trainer, rows, fold_numbers(rows, 0)).cross_fit(UNTOUCHED).article
    assert np.array_equal(article.images, expected.images)


def test_without_a_text_model_the_articles_recipe_has_the_runs_negatives_and_a_plan_says_so(
    place: Workspace, rows: list[Example]
) -> None:
    model, table = find_model("sample"), place.write_table("examples", rows)
    split = PARAMETERS.split.model_copy(update={"min_rows": 1})
    asked = PARAMETERS.model_copy(update={"split": split})
    assert (
        "negatives.method random"
        in plan_run(place, model, None, table, asked, "float32").article_told
    )
    assert not plan_run(place, model, model, table, asked, "float32").article_told


@pytest.mark.parametrize("method", ["none", "least_similar"])
def test_on_a_holdout_the_articles_recipe_learns_from_the_least_similar_titles(
    place: Workspace, rows: list[Example], method: str
) -> None:
    model = find_model("sample")
    paired = [row.model_copy(update={"title_neg": None}) for row in rows]
    update = {
        "training": PARAMETERS.training.model_copy(update={"recipe": "given"}),
        "evaluation": PARAMETERS.evaluation.model_copy(update={"method": "holdout"}),
        "negatives": PARAMETERS.negatives.model_copy(update={"method": method}),
    }
    asked = PARAMETERS.model_copy(update=update)
    trainer = RecipeTrainer(place, model, model, paired, asked, "float32")
    mined = trainer.with_negatives(
        paired, asked.negatives.model_copy(update={"method": "least_similar"})
    )
    table = place.write_table("examples", mined if method == "least_similar" else paired)
    plan = plan_run(place, model, model, table, asked, "float32")
    head = trainer.do(
        article_candidate(trainer.article), [row for row in mined if row.split == "train"]
    )
    expected = trainer.measure(head, rows, "test")
    measured = plan.figures["article"].splits["test"].metrics
    assert measured["MRR"] == pytest.approx(expected["MRR"])


def test_of_a_cross_fit_a_recipe_is_trained_once_for_each_two_folds_whatever_it_is_called(
    place: Workspace, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = PARAMETERS.model_copy(update={"training": TrainingParameters()})  # the article's own
    trainer = RecipeTrainer(place, find_model("sample"), None, rows, base, "float32")
    asked = Learner(trainer, rows, fold_numbers(rows, 0))
    trained: list[frozenset[str]] = []
    do = trainer.do

    def watched(candidate: Candidate, learned: list[Example]):  # type: ignore[no-untyped-def]
        trained.append(frozenset(row.id for row in learned))
        return do(candidate, learned)

    monkeypatch.setattr(trainer, "do", watched)
    asked.choose()
    crossed = asked.cross_fit()
    assert len(trained) == 15 == len(set(trained))
    alone = Learner(trainer, rows, fold_numbers(rows, 0)).cross_fit(
        article_candidate(trainer.article)
    )
    assert np.allclose(crossed.article.images, alone.article.images, atol=1e-6)
    assert np.allclose(alone.chosen.titles, alone.article.titles)


@pytest.mark.parametrize("ends_in", ["projections", "a dense module"])
def test_the_untouched_model_is_measured_as_it_stands(
    place: Workspace, rows: list[Example], tmp_path: Path, ends_in: str
) -> None:
    clip = SentenceTransformer(str(MODEL))
    if ends_in == "a dense module":
        width = clip.get_embedding_dimension()
        assert width
        clip.append(Dense(width, 8, bias=True))
    clip.save_pretrained(str(tmp_path / "clip"), create_model_card=False)
    base = find_model(str(tmp_path / "clip"))
    trainer = RecipeTrainer(place, base, None, rows, PARAMETERS, "float32")
    folds = fold_numbers(rows, 0)
    made = Learner(trainer, rows, folds).choose()

    plain = SentenceTransformer(str(tmp_path / "clip"))
    pictures = plain.encode([load_image(place, row) for row in rows], normalize_embeddings=True)
    titles = plain.encode([row.title for row in rows], normalize_embeddings=True)
    similar, names = pictures @ titles.T, np.array([row.title for row in rows])
    rivals = (folds[:, None] == folds) & (names[:, None] != names)
    ranks = 1 + (rivals & (similar >= similar.diagonal()[:, None])).sum(axis=1)
    assert made.tried[0].candidate == UNTOUCHED
    assert made.tried[0].mrr == pytest.approx((1 / ranks).mean(), abs=1e-3)


def test_the_untouched_model_stays_unless_a_recipe_beats_it_by_a_standard_error(
    place: Workspace, rows: list[Example]
) -> None:
    stayed = []
    for seed in range(4):  # titles that tell nothing of their pictures
        order = np.random.default_rng(seed).permutation(len(rows))
        strange = [
            row.model_copy(update={"title": rows[other].title})
            for row, other in zip(rows, order, strict=True)
        ]
        made = learner(place, strange, fold_numbers(strange, seed)).choose()
        best = max(made.tried, key=lambda each: each.mrr)
        assert (made.taken == UNTOUCHED) == (best.above <= best.error)
        stayed.append(made.taken == UNTOUCHED)
    assert any(stayed)


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
