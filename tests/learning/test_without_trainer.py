"""Trainings without a Trainer: the weights that sentence-transformers' Trainer gives."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.small_channel import make_examples
from thumbtune.clip.models import find_model
from thumbtune.data.thumbnails import Example
from thumbtune.learning.recipes import RecipeTrainer
from thumbtune.learning.training import fine_tune
from thumbtune.learning.weights import set_parameters, trainable_parameters
from thumbtune.learning.without_trainer import fine_tune_projections, trains_projections_alone
from thumbtune.parameters import NegativesParameters, TrainingParameters, TrainParameters
from thumbtune.store.workspace import Workspace


def trainer_of(workspace: Workspace, *fragments: str) -> tuple[RecipeTrainer, list[Example]]:
    rows = make_examples(workspace, 70)
    rows = [row.model_copy(update={"split": "train"}) for row in rows]
    asked = {"source": "sample", "training": {"trainable": fragments or ["projection"]}}
    parameters = TrainParameters.model_validate(asked)
    return RecipeTrainer(workspace, find_model("sample"), None, rows, parameters, "float32"), rows


@pytest.mark.slow
@pytest.mark.compatibility
@pytest.mark.parametrize("batches", ["no_duplicates", "plain"])
@pytest.mark.parametrize("negatives", ["none", "random"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_weights_are_those_of_the_trainer(
    workspace: Workspace, batches: str, negatives: str, symmetric: bool
) -> None:
    trainer, rows = trainer_of(workspace)
    mined = NegativesParameters.model_validate({"method": negatives})
    rows = trainer.with_negatives(rows, mined)
    how = {"epochs": 4, "learning_rate": 1e-3, "interpolation": 0.7, "batch_size": 16}
    parameters = TrainingParameters.model_validate(
        {**how, "batches": batches, "symmetric": symmetric}
    )
    fine_tune(trainer.head, workspace, rows, [], parameters, trainer.parameters.evaluation, 3)
    expected = trainable_parameters(trainer.head)
    set_parameters(trainer.head, trainer.untouched)
    fine_tune_projections(trainer.head, rows, parameters, 3)
    for name, value in trainable_parameters(trainer.head).items():
        changed = (expected[name] - trainer.untouched[name]).abs().max()
        assert changed > 1e-3
        assert (value - expected[name]).abs().max() < 1e-3 * changed


def test_another_seed_gives_other_weights(workspace: Workspace) -> None:
    trainer, rows = trainer_of(workspace)

    def weights(seed: int) -> Tensor:
        set_parameters(trainer.head, trainer.untouched)
        fine_tune_projections(trainer.head, rows, TrainingParameters(learning_rate=1e-3), seed)
        return torch.cat([value.flatten() for value in trainable_parameters(trainer.head).values()])

    drawn = [weights(seed) for seed in (1, 2, 1)]
    assert torch.equal(drawn[0], drawn[2])
    assert all(not torch.equal(*pair) for pair in pairwise(drawn))


@pytest.mark.parametrize("fragments", [["post_layernorm"], ["projection", "text_model"]])
def test_what_trains_more_or_else_than_the_projections_is_left_to_the_trainer(
    workspace: Workspace, fragments: list[str]
) -> None:
    assert trains_projections_alone(trainer_of(workspace)[0].head)
    assert not trains_projections_alone(trainer_of(workspace, *fragments)[0].head)
