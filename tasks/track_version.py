"""Task: tell an experiment tracker of a version."""

from prefect import task
from prefect.tasks import exponential_backoff
from pydantic import BaseModel

from thumbtune.channel.registry import Version
from thumbtune.learning.evaluation import SplitEvaluation
from thumbtune.learning.trained_model import LossPoint
from thumbtune.reporting.tracking import track
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import content_key


class Tracked(BaseModel):
    """A tracker that was told of a version, so that it is told once."""

    tracker: str
    version: int

    def is_whole(self, workspace: Workspace) -> bool:
        """What a tracker keeps is its own."""
        return True


@task(
    name="track-version",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
)
def track_version(
    workspace: Workspace,
    tracker: str,
    run_name: str,
    version: Version,
    history: list[LossPoint],
    untouched: SplitEvaluation,
) -> Tracked:
    """Tell one tracker of a version's parameters, losses and metrics."""
    track(tracker, run_name, version, history, untouched)
    return Tracked(tracker=tracker, version=version.number)
