"""What a flow run is called and found by, and what it takes from its deployment."""

from typing import Any, TypeVar

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel

from thumbtune.channel.source import last_part, short_name
from thumbtune.errors import SourceError
from thumbtune.parameters import TrainParameters, in_rows, made_of

P = TypeVar("P", bound=TrainParameters)

BY_HAND, BY_SCHEDULE, BY_EVENT, BY_FLOW = "by-hand", "schedule", "event", "flow"
ON_THE_COMMAND_LINE = "command-line"


def run_name() -> str:
    """Such as `train @handle · ViT-L-14`; a flow's `flow_run_name`.

    The parameters are as they were given, and may be wrong: the run tells that, not its name.
    """
    given = flow_run.parameters
    source, channel = str(given.get("source", "")), given.get("channel")
    model = last_part(str(given.get("model", ""))).removeprefix("clip-")
    of = model if model and model != source else ""
    return " · ".join(filter(None, [f"{flow_run.flow_name} {_called(source, channel)}", of]))


def _called(source: str, channel: Any) -> str:
    try:
        return short_name(source, channel and str(channel))
    except SourceError:
        return str(channel or source)


def _current() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None


def tag_run(*more: str) -> None:
    """Tag the current run with what started it, and more; those of its deployment stay."""
    run = _current()
    if run is None:
        return
    tags = {*run.tags, f"trigger:{trigger_of(run)}", *more}
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags=sorted(tags))


def name_outcome(told: str) -> None:
    """Add to the current run's name what came of it: a key's history shows names alone."""
    if run := _current():
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, name=f"{run.name} · {told}")


def tags_of(parameters: TrainParameters) -> list[str]:
    """By which the runs of a channel are found."""
    called = short_name(parameters.source, parameters.channel)
    return [f"channel:{called}", f"source:{parameters.source}"]


def trigger_of(run: FlowRun) -> str:
    """What started a run."""
    if run.parent_task_run_id:
        return BY_FLOW
    if run.deployment_id is None:
        return ON_THE_COMMAND_LINE
    if run.auto_scheduled:
        return BY_SCHEDULE
    return BY_EVENT if run.created_by and run.created_by.type == "AUTOMATION" else BY_HAND


def as_deployed(parameters: P) -> P:
    """The parameters, where what a group leaves out is its deployment's.

    Prefect replaces a whole group by what a run gives of it, so `training={"epochs": 20}` would
    lose the deployment's learning rate without a word. What differs from the deployment is logged.
    """
    run = _current()
    if run is None or run.deployment_id is None:
        return parameters
    with get_client(sync_client=True) as client:
        deployed = client.read_deployment(run.deployment_id).parameters
    filled = made_of(type(parameters), _filled(parameters, deployed))
    _tell(filled, parameters, deployed)
    return filled


def _filled(parameters: TrainParameters, deployed: dict[str, Any]) -> dict[str, Any]:
    """The values of the fields, each group with what the deployment has beside what was given."""
    values: dict[str, Any] = dict(parameters)
    for name, own in values.items():
        group = deployed.get(name)
        if isinstance(own, BaseModel) and isinstance(group, dict):
            values[name] = {**group, **own.model_dump(exclude_unset=True)}
    return values


def _tell(filled: P, given: P, deployed: dict[str, Any]) -> None:
    """Log what a run has of its deployment, and what it has otherwise."""
    before, now = dict(in_rows(given)), dict(in_rows(filled))
    kept = [f"{name} {value}" for name, value in now.items() if value != before[name]]
    usual = dict(in_rows(type(filled).model_construct(**_as_models(type(filled), deployed))))
    other = [
        f"{name} {value} (there {usual[name]})"
        for name, value in now.items()
        if value != usual[name]
    ]
    if kept:
        get_run_logger().info("Taken from the deployment: %s", ", ".join(kept))
    if other:
        get_run_logger().info("Other than the deployment's: %s", ", ".join(other))


def _as_models(model: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """A deployment's values, its groups as models: it need not have a channel yet."""
    return {
        name: field.annotation.model_validate(values[name])
        if isinstance(values[name], dict) and isinstance(field.annotation, type)
        else values[name]
        for name, field in model.model_fields.items()
        if name in values
    }
