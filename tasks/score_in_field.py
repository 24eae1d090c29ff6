"""Task: score the champion on the videos that appeared after its training."""

from prefect import task
from prefect.events import emit_event
from prefect.logging import get_run_logger

from thumbtune.channel.field_scores import FOLDER, FieldScore, keep_score
from thumbtune.channel.registry import Registry, Version
from thumbtune.clip.towers import Precision
from thumbtune.learning.field import score_later
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.notifications import notify


@task(name="score-in-field", task_run_name="score-in-field", persist_result=False)
def score_in_field(
    workspace: Workspace,
    parameters: TrainParameters,
    champion: Version,
    examples: Table,
    precision: Precision,
) -> FieldScore | None:
    """Score the champion before anything learns from the new videos, and keep that in its record.

    If it no longer reaches what it measured when it was trained, an event tells.
    """
    registry = Registry(workspace, parameters.source, parameters.channel)
    records = registry.records(FOLDER, FieldScore)
    number = records[-1].number + 1 if records else 1
    score = score_later(workspace, champion, examples, precision, number)
    if score is None:
        return None
    get_run_logger().info("Version %d in the field: %s", champion.number, score)
    if keep_score(registry, score) and score.has_drifted:
        tell(registry, parameters, score)
    return score


def tell(registry: Registry, parameters: TrainParameters, score: FieldScore) -> None:
    """Emit and post that a champion has drifted."""
    channel = parameters.channel or parameters.source
    why = f"version {score.version} in the field: {score}"
    told = {"event": "model.drift", "version": score.version}
    notify(f"thumbtune: {channel}: {why}", channel, **told)
    emit_event(
        event="thumbtune.model.drift",
        resource={"prefect.resource.id": f"thumbtune.channel.{registry.name}"},
        payload={
            "channel": parameters.channel,
            "version": score.version,
            "why": str(score),
        },
    )
