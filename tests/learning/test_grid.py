"""Ridge and prior without the maps: held to the maps that are solved for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pooled_outputs import drawn
from tests.small_channel import make_examples
from thumbtune.clip.ends import KINDS, Kind
from thumbtune.clip.models import find_model
from thumbtune.data.splits import fold_numbers
from thumbtune.learning.candidates import Candidate
from thumbtune.learning.choice import FORMS, Learner
from thumbtune.learning.closed_form import ClosedForm, Maps, Whitened
from thumbtune.learning.grid import Learned, Span
from thumbtune.learning.pooled import Pooled
from thumbtune.learning.recipes import RecipeTrainer
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace


@given(
    seed=st.integers(0, 1000),
    videos=st.integers(8, 40),
    widths=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    dimensions=st.integers(3, 20),
    form=st.builds(ClosedForm, ridge=st.floats(0.03, 3), prior=st.floats(0, 0.95)),
    centred=st.sampled_from([KINDS, ("image",), ()]),
)
def test_products_are_those_of_the_solved_maps_and_titles_are_no_shorter(
    seed: int,
    videos: int,
    widths: tuple[int, int],
    dimensions: int,
    form: ClosedForm,
    centred: tuple[Kind, ...],
) -> None:
    dimensions = min(dimensions, *widths)
    outputs, projections = drawn(videos, widths, dimensions, seed)
    known = Pooled(outputs, np.arange(videos))
    untouched = Maps({kind: values[0] for kind, values in outputs.items()}, projections)
    learned, held_out = np.arange(videos) % 4 != 0, np.arange(videos) % 4 == 0
    images, titles = Learned(Span(known, untouched), learned, centred).embedded(form, held_out)

    taught = {kind: values[learned] for kind, values in known.outputs.items()}
    maps = Whitened(taught, untouched.maps, centred).solve(form)
    exact = {kind: maps.embed(kind, known.outputs[kind][held_out]) for kind in KINDS}
    lengths = np.linalg.norm(exact["text"], axis=1)
    ours, theirs = images @ titles.T, exact["image"] @ exact["text"].T / lengths
    size = np.abs(theirs).max()
    if videos >= max(widths):
        assert np.abs(ours - theirs).max() < 1e-5 * size
    elif dimensions == min(widths):
        shares = (ours * theirs).sum(axis=0) / (theirs * theirs).sum(axis=0)
        assert np.abs(ours - shares * theirs).max() < 1e-5 * size
        assert (shares < 1 + 1e-6).all()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("grid"))


@pytest.mark.parametrize("videos", [40, 60])
def test_of_fewer_videos_than_directions_a_form_is_taken_that_does_as_well_as_the_best(
    place: Workspace, videos: int
) -> None:
    rows = make_examples(place, videos)
    parameters = TrainParameters.model_validate({"source": "sample"})
    trainer = RecipeTrainer(place, find_model("sample"), None, rows, parameters, "float32")
    for seed in range(3):
        learner = Learner(trainer, rows, fold_numbers(rows, seed))
        solved = {
            form: learner._all_gains(Candidate(name="closed form", start=form), frozenset()).mean()
            for form in FORMS
        }
        taken = next(each.start for each in learner.candidates(frozenset()) if each.start)
        assert solved[taken] > max(solved.values()) - 0.01
        assert max(solved.values()) - min(solved.values()) > 0.1
