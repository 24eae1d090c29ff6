"""Task: tell what is ahead of a run, before it takes long."""

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.channel.listing import Video
from thumbtune.clip.ahead import Ahead
from thumbtune.clip.ahead import look_ahead as count
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace


@task(name="look-ahead", task_run_name="look-ahead", persist_result=False)
def look_ahead(
    workspace: Workspace, videos: Table, listed: str, model: ModelReference, anew: bool
) -> Ahead:
    """Count downloads and pictures to encode, and say about how long that takes."""
    rows = workspace.read_table(videos, Video)
    ahead = count(workspace, rows, listed, model, anew)
    get_run_logger().info("%s", ahead, extra={"told": True})
    return ahead
