"""Where the mapped steps of a run are executed: in threads of this process, on Dask, or on Ray.

That is a setting of the machine and not a parameter of the run, so the environment has it.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from thumbtune.errors import UserError
from thumbtune.flows.console import quiet_console
from thumbtune.flows.own_server import OwnServer

FOUR_AT_A_TIME = 4
"""Mapped steps at a time in threads; each batch of thumbnails has its own downloads at once."""

PRELOADED = "thumbtune.flows.training"
"""What Dask's workers import first: imports in the middle would make them miss heartbeats."""


class TaskRunnerSettingError(UserError):
    """THUMBTUNE_TASK_RUNNER names no task runner, or one that cannot work here."""


def task_runner_of_this_machine() -> TaskRunner[Any]:
    """The task runner that THUMBTUNE_TASK_RUNNER names: threads (the default), dask or ray.

    THUMBTUNE_DASK_ADDRESS and THUMBTUNE_RAY_ADDRESS name a cluster that runs already; without one,
    workers are started on this machine for as long as the run takes.

    Raises:
        TaskRunnerSettingError: there is no such task runner, its extra is not installed, or its
            workers could not find the Prefect server.
    """
    name = os.environ.get("THUMBTUNE_TASK_RUNNER") or "threads"
    if name == "threads":
        return ThreadPoolTaskRunner(max_workers=FOUR_AT_A_TIME)
    if name not in ("dask", "ray"):
        raise TaskRunnerSettingError(
            f"THUMBTUNE_TASK_RUNNER is {name!r}. Set it to threads, dask or ray, or unset it."
        )
    if get_current_settings().api.url is None:  # each worker would start a server of its own
        raise TaskRunnerSettingError(
            f"THUMBTUNE_TASK_RUNNER is {name}, whose workers need a Prefect server. Start one with "
            "`prefect server start` and set PREFECT_API_URL to its address."
        )
    try:
        return _dask() if name == "dask" else _ray()
    except ImportError:
        raise TaskRunnerSettingError(
            f"THUMBTUNE_TASK_RUNNER is {name}, which is not installed. "
            f"`pip install 'thumbtune[{name}]'`, or unset THUMBTUNE_TASK_RUNNER."
        ) from None


@contextmanager
def on_the_command_line() -> Iterator[Path | None]:
    """Prefect as a script needs it that runs a flow, mostly with a server of its own.

    Gives the file of the run's log, if it has one.

    Raises:
        TaskRunnerSettingError: a wrong setting shows here, before Prefect starts.
    """
    task_runner_of_this_machine()
    settings: Any = {
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,  # 20 are too few on a busy machine
    }
    if OwnServer.current:
        OwnServer.current.wait_until_ready()
    with temporary_settings(settings), quiet_console() as log:
        yield log


def _dask() -> TaskRunner[Any]:
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # a page for each start and end
    from prefect_dask import DaskTaskRunner

    if address := os.environ.get("THUMBTUNE_DASK_ADDRESS"):
        return DaskTaskRunner(address=address)
    options = {"dashboard_address": "127.0.0.1:0", "preload": [PRELOADED]}
    return DaskTaskRunner(cluster_kwargs=options)


def _ray() -> TaskRunner[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner

    return RayTaskRunner(address=os.environ.get("THUMBTUNE_RAY_ADDRESS"))


def with_a_gpu_each() -> AbstractContextManager[Any]:
    """Steps that are mapped within have a GPU each, if the run is on a Ray cluster that has some.

    Steps that do not ask for one would all take the first. Dask's workers have those that they
    were started with.
    """
    context = FlowRunContext.get()
    if context is None or context.task_runner.name != "ray":
        return nullcontext()
    import ray
    from prefect_ray.context import remote_options

    return remote_options(num_gpus=1) if ray.cluster_resources().get("GPU") else nullcontext()


class TaskRunnerBySetting(ThreadPoolTaskRunner[Any]):
    """Stands for the task runner of the machine, which is asked for when a run starts.

    Prefect gives each run a duplicate of its flow's task runner.
    """

    def duplicate(self) -> Any:
        """The task runner of this machine."""
        return task_runner_of_this_machine()


BY_SETTING: Any = TaskRunnerBySetting()
"""What the flows that map are given."""
