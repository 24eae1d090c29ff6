"""The search for hyperparameters, on features that are encoded once.

Run it as `thumbtune sweep @handle` or `python flows/sweep_flow.py @handle`, from the Prefect UI,
or on a schedule.
"""

if __name__ == "__main__":
    from thumbtune.flows.early import begin

    begin("sweep")

import sys

from prefect import flow, get_run_logger
from pydantic import BaseModel

from thumbtune.channel.lookup import identify
from thumbtune.channel.preflight import check_search
from thumbtune.commands import train_command
from thumbtune.flows.command_line import Arguments, Given, run_script
from thumbtune.flows.runners import BY_SETTING, on_the_command_line
from thumbtune.flows.train_flow import (
    begun_again_on_damage,
    collect,
    encode,
    find_models,
    paired_by_clip,
)
from thumbtune.learning.recipes import RecipeResult
from thumbtune.parameters import SweepParameters, takes
from thumbtune.reporting.report import left_out
from thumbtune.store.disk import disk_errors_explained
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.artifacts import post_sweep_artifacts
from thumbtune.tasks.caching import Stages
from thumbtune.tasks.call_youtube import call_youtube
from thumbtune.tasks.compare_recipes import compare_recipes
from thumbtune.tasks.search_hyperparameters import search_hyperparameters
from thumbtune.tasks.write_sweep import write_sweep
from thumbtune.text.escaping import for_terminal


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


@flow(name="sweep", task_runner=BY_SETTING, persist_result=False)
@takes(SweepParameters)
def sweep(parameters: SweepParameters) -> SweepRun:
    """Search the hyperparameters that validate best, and measure the choice on test at the end."""
    check_search(parameters, tell=get_run_logger().warning)
    parameters = parameters.located()
    with disk_errors_explained(parameters.workspace):
        workspace = Workspace.open(parameters.workspace)
        return begun_again_on_damage(search_and_compare, workspace, parameters)


def search_and_compare(workspace: Workspace, parameters: SweepParameters) -> SweepRun:
    """The story from top to bottom.

    Whatever `evaluation.method` says: folds choose, and test is kept for the end.
    """
    on_test = parameters.evaluation.model_copy(update={"method": "holdout"})
    parameters = parameters.model_copy(update={"evaluation": on_test})
    identify(workspace, parameters, call_youtube)
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
    post_sweep_artifacts(workspace, found, comparison, report)

    get_run_logger().info("%s %s", left_out(funnel), stages.summary())
    return SweepRun(
        best_parameters=str(workspace.place(f"{report.folder}/best_parameters.json")),
        best_valid_mrr=found.best_valid_mrr,
        test=comparison.results,
        left_out=left_out(funnel),
        stages=stages.summary(),
    )


def main(arguments: Arguments = None, given: Given = None) -> int:
    """Run the flow from the command line; 0 if it finished."""
    return run_script(SweepParameters, sweep_and_tell, arguments, given)


def sweep_and_tell(parameters: SweepParameters) -> None:
    """Run the flow and print what came of it."""
    with on_the_command_line():
        run: SweepRun = sweep(**dict(parameters))
    print("\nRecall@1 on test, mean ± deviation over the seeds:")
    for result in run.test:
        print(f"  {result.name:22} {result.told}")
    print(for_terminal(f"{run.left_out}\n{run.stages}") + "\n\nTrain with the sweep's choice:")
    print(f"  {train_command('--parameters', run.best_parameters)}")


if __name__ == "__main__":
    sys.exit(main())
