"""The search for hyperparameters, on features that are encoded once.

Run it as `thumbtune sweep @handle` or `python flows/sweep_flow.py @handle`, from the Prefect UI,
or on a schedule.
"""

if __name__ == "__main__":
    from thumbtune.flows.early import begin

    begin("sweep")

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger

from thumbtune.channel.lookup import identify
from thumbtune.channel.preflight import check_search
from thumbtune.commands import train_command
from thumbtune.flows.command_line import Arguments, Given, run_script
from thumbtune.flows.runners import BY_SETTING, on_the_command_line
from thumbtune.imports import many_imports
from thumbtune.parameters import SweepParameters, takes
from thumbtune.store.disk import disk_errors_explained
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.call_youtube import call_youtube
from thumbtune.tasks.cancelling import end_tasks
from thumbtune.tasks.runs import as_deployed, run_name, tag_run, tags_of
from thumbtune.text.escaping import for_terminal

if TYPE_CHECKING:
    from thumbtune.flows.searching import SweepRun


@flow(
    name="sweep",
    flow_run_name=run_name,
    task_runner=BY_SETTING,
    persist_result=False,
    on_cancellation=[end_tasks],
)
@takes(SweepParameters)
def sweep(parameters: SweepParameters) -> "SweepRun":
    """Search the hyperparameters that validate best, and measure the choice on test at the end."""
    tag_run(*tags_of(parameters))
    parameters = as_deployed(parameters)
    check_search(parameters, tell=get_run_logger().warning)
    parameters = parameters.located()
    with disk_errors_explained(parameters.workspace):
        workspace = Workspace.open(parameters.workspace)
        identify(workspace, parameters, call_youtube)
        with many_imports():  # late, so that a run in Prefect's UI is seen to run
            from thumbtune.flows import searching, training

        return training.begun_again_on_damage(searching.search_and_compare, workspace, parameters)


def main(arguments: Arguments = None, given: Given = None) -> int:
    """Run the flow from the command line; 0 if it finished."""
    return run_script(SweepParameters, sweep_and_tell, arguments, given)


def sweep_and_tell(parameters: SweepParameters) -> None:
    """Run the flow and print what came of it."""
    with many_imports():
        import_module("thumbtune.flows.searching")
    with on_the_command_line():
        run: SweepRun = sweep(**dict(parameters))
    print("\nRecall@1 on test, mean ± deviation over the seeds:")
    for result in run.test:
        print(f"  {result.name:22} {result.told}")
    print(for_terminal(f"{run.left_out}\n{run.stages}") + "\n\nTrain with the sweep's choice:")
    print(f"  {train_command('--parameters', run.best_parameters)}")


if __name__ == "__main__":
    sys.exit(main())
