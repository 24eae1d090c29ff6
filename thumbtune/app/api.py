"""What a program trains with; the rest of its door is `thumbtune.use.champion`."""

from typing import Any

from thumbtune.channel.preflight import check_training
from thumbtune.flows.runners import on_the_command_line
from thumbtune.flows.train_flow import train as train_flow
from thumbtune.flows.training import TrainRun
from thumbtune.parameters import TrainParameters, made_of
from thumbtune.tasks.secret_blocks import read_secret_early


def train(**parameters: Any) -> TrainRun:
    """Train on a channel, as `python flows/train_flow.py` does.

    It is a run of Prefect's: on the server of PREFECT_API_URL, or on one that lives as long as the
    run. What an earlier run has done for the same parameters is not done again.

    Args:
        parameters: those of docs/parameters.md, such as `channel="@handle"`; a group is a mapping:
            `training={"epochs": 4}`.

    Raises:
        UserError: the parameters do not fit together, or what they name cannot be had; the message
            names the field and the mend.
    """
    check_training(made_of(TrainParameters, parameters), read_secret_early)
    with on_the_command_line():
        run: TrainRun = train_flow(**parameters)
    return run
