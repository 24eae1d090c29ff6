"""Task: divide the videos into splits."""

from collections import Counter

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.channel.listing import Video
from thumbtune.data.near_duplicates import Look
from thumbtune.data.splits import Assigned, divide_videos, leakage
from thumbtune.parameters import SPLITS, SplitParameters
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="split-videos",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4),
)
def split_videos(
    workspace: Workspace,
    videos: Table,
    parameters: SplitParameters,
    seed: int,
    assigned: Table | None,
    looks: Table,
) -> Table:
    """Divide a table of `Video` into splits: a table of `SplitVideo`.

    Args:
        looks: rows of `Look`.
        assigned: rows of `Assigned` that earlier runs have made, if there are any.
    """
    before = workspace.read_table(assigned, Assigned) if assigned else []
    seen = {row.id: row.look for row in workspace.read_table(looks, Look)}
    rows = divide_videos(workspace.read_table(videos, Video), parameters, seed, before, seen)
    sizes: Counter[str] = Counter(row.split for row in rows)
    get_run_logger().info("Split: %s", ", ".join(f"{name} {sizes[name]}" for name in SPLITS))
    if told := leakage(rows, parameters.method):
        get_run_logger().warning(told)
    return workspace.write_table("splits", rows)
