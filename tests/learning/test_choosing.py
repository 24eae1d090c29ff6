"""A run's plan: what is done to the model, and the figures that stand beside it."""

import numpy as np

from tests.small_channel import make_examples
from thumbtune.clip.models import find_model
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import UNTOUCHED
from thumbtune.learning.choosing import Plan, plan_run
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace


def planned(workspace: Workspace, rows: list[Example], seed: int) -> Plan:
    asked = {"source": "sample", "seed": seed, "negatives": {"method": "random"}}
    parameters = TrainParameters.model_validate(asked | {"evaluation": {"method": "cross_fit"}})
    table = workspace.write_table("examples", rows)
    return plan_run(workspace, find_model("sample"), None, table, parameters, "float32")


def test_where_the_untouched_model_is_kept_its_figures_are_those_of_the_run(
    workspace: Workspace,
) -> None:
    rows = make_examples(workspace, 60)
    kept = 0
    for seed in range(4):  # titles that tell nothing of their pictures
        order = np.random.default_rng(seed).permutation(len(rows))
        strange = [
            row.model_copy(update={"title": rows[other].title})
            for row, other in zip(rows, order, strict=True)
        ]
        plan = planned(workspace, strange, seed)
        if plan.candidate == UNTOUCHED:
            kept += 1
            chosen, untouched = plan.figures["chosen"], plan.figures["untouched"]
            assert chosen.judged.metrics == untouched.judged.metrics
            assert chosen.predictions.fingerprint == untouched.predictions.fingerprint
    assert kept > 0
