"""When the choice of a channel's last sweep is tried by a run that comes after it."""

import logging

import pytest

from tests.small_channel import make_examples
from thumbtune.channel.registry import SWEEP, Registry
from thumbtune.clip.models import find_model
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import Recipe
from thumbtune.learning.last_sweep import as_candidates, keep_sweep, last_sweep
from thumbtune.learning.recipes import Sweep
from thumbtune.parameters import NegativesParameters, TrainingParameters
from thumbtune.store.workspace import Workspace

BASE = find_model("sample")
BEST = Recipe(training=TrainingParameters(epochs=7), negatives=NegativesParameters())


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return Registry(workspace, "youtube", "@tester")


@pytest.fixture
def rows(registry: Registry) -> list[Example]:
    """What a sweep has met, whose choice is kept."""
    rows = make_examples(registry.workspace, 12)
    keep_sweep(
        registry,
        Sweep(
            folder="sweeps/a",
            best=BEST,
            best_valid_mrr=0.5,
            folds=5,
            trials=registry.workspace.write_table("trials", []),
            base=BASE.fingerprint,
            examples=registry.workspace.write_table("examples", rows),
        ),
    )
    return rows


def test_it_is_tried_where_test_is_what_the_sweep_has_not_looked_at(
    registry: Registry, rows: list[Example]
) -> None:
    new = rows[0].model_copy(update={"id": "new", "split": "test"})
    (tried,) = as_candidates(last_sweep(registry), BASE, [*rows, new])
    assert tried.recipe == BEST


@pytest.mark.parametrize("split", ["train", "valid"])
def test_it_is_passed_over_where_one_video_of_test_was_looked_at_and_the_log_says_so(
    registry: Registry, rows: list[Example], split: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = next(place for place, row in enumerate(rows) if row.split == split)
    rows[place] = rows[place].model_copy(update={"split": "test"})
    with caplog.at_level(logging.INFO):
        assert as_candidates(last_sweep(registry), BASE, rows) == []
    assert "it has looked at 1 videos that are test now" in caplog.text


def test_it_is_passed_over_where_it_was_made_for_another_model_and_the_log_says_so(
    registry: Registry, rows: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    other = BASE.model_copy(update={"fingerprint": "of another"})
    with caplog.at_level(logging.INFO):
        assert as_candidates(last_sweep(registry), other, rows) == []
    assert "made for another model" in caplog.text


@pytest.mark.parametrize("kept", [BEST.model_dump_json(), "{"])
def test_what_does_not_tell_what_it_has_looked_at_is_passed_over_and_the_log_says_so(
    registry: Registry, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry.workspace.write(f"{registry.path}/{SWEEP}", kept.encode())
    with caplog.at_level(logging.INFO):
        assert last_sweep(registry) is None
    assert "Sweep again" in caplog.text


def test_without_a_sweep_nothing_is_tried_and_nothing_said(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert as_candidates(last_sweep(registry), BASE, []) == []
    assert not caplog.text
