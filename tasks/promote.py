"""Task: let challenger and champion meet."""

from prefect import task
from prefect.events import emit_event

from thumbtune.channel.registry import Registry, Version
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.promotion import Verdict, decide
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace


@task(name="promote", task_run_name="promote", persist_result=False)
def promote(
    workspace: Workspace,
    parameters: TrainParameters,
    version: Version,
    untouched: Evaluation,
    challenger: Evaluation,
    met: int | None,
    champion: Evaluation | None,
    unmeasured: str,
) -> Verdict | None:
    """Make a version the champion if the rule allows; the arguments are those of `decide`."""
    how = (workspace, parameters, version, untouched, challenger)
    verdict = decide(*how, met, champion, unmeasured)
    if verdict and verdict.is_new:
        tell(workspace, parameters, verdict)
    return verdict


def tell(workspace: Workspace, parameters: TrainParameters, verdict: Verdict) -> None:
    """Emit what became of a version as an event."""
    registry = Registry(workspace, parameters.source, parameters.channel)
    emit_event(
        event=f"thumbtune.model.{'promoted' if verdict.promoted else 'kept'}",
        resource={"prefect.resource.id": f"thumbtune.channel.{registry.name}"},
        payload={
            "channel": parameters.channel,
            "version": verdict.version,
            "why": verdict.why,
        },
    )
