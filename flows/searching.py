"""The story of a search for hyperparameters, on features that are encoded once.

`thumbtune.flows.sweep_flow` is its door, as for a training.
"""

from prefect import get_run_logger
from pydantic import BaseModel

from thumbtune.flows.training import (
    collect,
    encode,
    find_models,
    paired_by_clip,
)
from thumbtune.learning.recipes import RecipeResult
from thumbtune.parameters import SweepParameters
from thumbtune.reporting.report import left_out
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.artifacts import post_sweep_artifacts
from thumbtune.tasks.caching import Stages
from thumbtune.tasks.compare_recipes import compare_recipes
from thumbtune.tasks.search_hyperparameters import search_hyperparameters
from thumbtune.tasks.write_sweep import write_sweep


class SweepRun(BaseModel):
    """What a run of the sweep flow gives."""

    best_parameters: str
    """JSON file that train_flow.py takes as `--parameters`."""
    best_valid_mrr: float
    test: list[RecipeResult]
    left_out: str
    """How many videos and thumbnails are not in it, and why."""
    stages: str
    """Which stages were executed and which came from the cache."""


def search_and_compare(workspace: Workspace, parameters: SweepParameters) -> SweepRun:
    """The story from top to bottom.

    Whatever `evaluation.method` says: folds choose, and test is kept for the end.
    """
    on_test = parameters.evaluation.model_copy(update={"method": "holdout"})
    parameters = parameters.model_copy(update={"evaluation": on_test})
    stages = Stages(workspace, parameters.refresh)
    compares_titles = parameters.negatives.method != "given"  # some trials do
    model, text_model = find_models(parameters, stages, compares_titles)
    funnel, _, _, examples, _ = collect(workspace, parameters, stages, model, text_model)

    precision = encode(workspace, model, examples, parameters, stages)[0].precision
    examples = paired_by_clip(workspace, model, examples, parameters, precision, stages)
    data = (workspace, model, text_model, examples, parameters.for_training())
    options = parameters.sweep
    found = stages.run(search_hyperparameters, *data, options, precision)
    comparison = stages.run(compare_recipes, *data, found.best, options.seeds, precision)
    report = stages.run(write_sweep, workspace, parameters.for_training(), found, comparison)
    post_sweep_artifacts(workspace, parameters, found, comparison, report)

    get_run_logger().info("%s %s", left_out(funnel), stages.summary())
    return SweepRun(
        best_parameters=str(workspace.place(f"{report.folder}/best_parameters.json")),
        best_valid_mrr=found.best_valid_mrr,
        test=comparison.results,
        left_out=left_out(funnel),
        stages=stages.summary(),
    )
