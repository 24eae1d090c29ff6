"""The main flow: from a channel to a fine-tuned, measured and reported CLIP.

Run it as `thumbtune train @handle` or `python flows/train_flow.py @handle`, from the Prefect UI,
or on a schedule. What it does is in `thumbtune.flows.training`.
"""

if __name__ == "__main__":
    from thumbtune.flows.early import begin

    begin("train")

import sys
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger

from thumbtune.channel.lookup import identify
from thumbtune.channel.preflight import check_training
from thumbtune.channel.registry import Registry
from thumbtune.flows.command_line import Arguments, Given, run_script
from thumbtune.flows.finished import keep
from thumbtune.flows.runners import BY_SETTING, on_the_command_line
from thumbtune.imports import many_imports
from thumbtune.parameters import (
    TrainParameters,
    takes,
)
from thumbtune.store.disk import disk_errors_explained
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.call_youtube import call_youtube
from thumbtune.tasks.cancelling import end_tasks
from thumbtune.tasks.notifications import notify_failure
from thumbtune.tasks.runs import as_deployed, run_name, tag_run, tags_of
from thumbtune.text.escaping import for_terminal

if TYPE_CHECKING:
    from thumbtune.flows.training import TrainRun


@flow(
    name="train",
    flow_run_name=run_name,
    task_runner=BY_SETTING,
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
    on_cancellation=[end_tasks],
)
@takes(TrainParameters)
def train(parameters: TrainParameters) -> "TrainRun":
    """Fine-tune CLIP on one channel's titles and thumbnails, and measure what it gained."""
    tag_run(*tags_of(parameters))
    parameters = as_deployed(parameters)
    check_training(parameters, tell=get_run_logger().warning)
    parameters = parameters.located()
    with disk_errors_explained(parameters.workspace):
        workspace = Workspace.open(parameters.workspace)
        identify(workspace, parameters, call_youtube)
        registry = Registry(workspace, parameters.source, parameters.channel)
        logger = get_run_logger()
        with many_imports():  # late, so that a run in Prefect's UI is seen to run
            from thumbtune.flows import training
        with registry.one_run_at_a_time(logger.warning):
            if removed := workspace.remove_leftovers():
                logger.info("Removed %d half-written files of runs that were killed", removed)
            return training.begun_again_on_damage(
                training.train_and_promote, workspace, parameters, registry
            )


def main(arguments: Arguments = None, given: Given = None) -> int:
    """Run the flow from the command line; 0 if it finished."""
    return run_script(TrainParameters, train_and_tell, arguments, given)


def train_and_tell(parameters: TrainParameters) -> None:
    """Run the flow and print what came of it."""
    with many_imports():
        from thumbtune.flows import training
        from thumbtune.flows.next_steps import next_steps

    with on_the_command_line() as log:
        run: TrainRun = train(**dict(parameters))
    told, steps = training.summary(run), next_steps(parameters)
    keep(run.rests_on, f"{told}\n\n{steps}")
    now = f"{run.stages}\nLog:    {log}" if log else run.stages
    print(for_terminal(f"\n{told}\n{now}\n\n{steps}"))


if __name__ == "__main__":
    sys.exit(main())
