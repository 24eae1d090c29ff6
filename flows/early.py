"""What comes before Prefect and PyTorch are imported: a mistake is told at once, and what takes
long begins."""

import os
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from thumbtune.channel.preflight import check_search, check_training
from thumbtune.flows.command_line import Arguments, Given, is_quiet, tell_mistakes
from thumbtune.flows.own_server import OwnServer, has_server
from thumbtune.imports import begin_imports
from thumbtune.parameters import SweepParameters, TrainParameters, WatchParameters
from thumbtune.tasks.secret_blocks import read_secret_early
from thumbtune.text.escaping import for_terminal

FLOWS: dict[str, tuple[type[BaseModel], Callable[..., None] | None]] = {
    "train": (TrainParameters, check_training),
    "sweep": (SweepParameters, check_search),
    "watch": (WatchParameters, None),
}
"""Flow → what its arguments are read as, and what is checked of them."""


def begin(
    flow: str, arguments: Arguments = None, program: str | None = None, given: Given = None
) -> None:
    """End this process with a message if its arguments cannot lead to a run of a flow, or would
    lead to a training that has nothing to do. Else the imports of the flow are to follow.

    Args:
        program: what its help calls it.
        given: parameters that stand before all arguments.
    """
    model, check = FLOWS[flow]

    def early(asked: Any) -> None:
        if check:
            check(asked, read_secret_early)

    asked = tell_mistakes(model, early, arguments, program, given)
    if isinstance(asked, TrainParameters) and flow == "train" and is_quiet():
        end_if_nothing_is_to_do(asked)
    if not has_server() and not os.environ.get("THUMBTUNE_TASK_RUNNER"):
        OwnServer.start()
    begin_imports()


def end_if_nothing_is_to_do(asked: TrainParameters) -> None:
    """End this process with what the last run has said, if this one would find all done."""
    from thumbtune.flows.finished import nothing_to_do

    if told := nothing_to_do(asked):
        print(for_terminal(told))
        sys.exit(0)
