"""Task: let challenger and champion meet."""

from prefect import task
from prefect.events import emit_event

from thumbtune.channel.registry import Registry, Version
from thumbtune.learning.evaluation import Evaluation
from thumbtune.learning.promotion import (
    Verdict,
    decide,
)
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace


@task(name="promote", persist_result=False)
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
    """Make a version the champion if the rule allows.

    A version is decided on once: after a rollback the same model does not come back by itself.

    Args:
        met: the version that was the champion when it was measured; None if there was none.
        champion: its measures on the same examples; None if there is none.
        unmeasured: why there is none, though there is a champion.

    Returns:
        None if another version is the champion by now, by hand: this one has to meet it first.
    """
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
