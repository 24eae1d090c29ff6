"""A run that is cancelled from Prefect's UI: its tasks end so too, and its log says what stays."""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled

KEPT = "Cancelled. What is stored is kept: the next run goes on from there."
UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.CRASHED]
"""Tasks that were at work are crashed to Prefect, since a signal ended them."""


def end_tasks(flow: Any, flow_run: Any, state: Any) -> None:
    """A flow's `on_cancellation` hook, called by the worker, which has stopped the process."""
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    unfinished = TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=of_it, task_run_filter=TaskRunFilter(state=unfinished)
        )
        for run in runs:
            client.set_task_run_state(run.id, Cancelled(message=KEPT), force=True)
    flow_run_logger(flow_run, flow).info(KEPT)
