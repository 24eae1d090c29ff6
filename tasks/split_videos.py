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

LINKING = "would link one split with another"


@task(
    name="split-videos",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=5),
)
def split_videos(
    workspace: Workspace,
    videos: Table,
    parameters: SplitParameters,
    seed: int,
    assigned: Table | None,
    looks: Table,
    leaves_out: bool,
) -> Table:
    """Divide a table of `Video` into splits: a table of `SplitVideo`.

    Args:
        looks: rows of `Look`.
        assigned: rows of `Assigned` that earlier runs have made, if there are any.
        leaves_out: whether videos that link one split with another are left out.
    """
    before = workspace.read_table(assigned, Assigned) if assigned else []
    seen = workspace.read_table(looks, Look)
    alike = {row.id: row.look for row in seen}, {row.id: row.picture for row in seen}
    listed = workspace.read_table(videos, Video)
    rows = divide_videos(listed, parameters, seed, before, *alike, leaves_out)
    sizes: Counter[str] = Counter(row.split for row in rows)
    get_run_logger().info("Split: %s", ", ".join(f"{name} {sizes[name]}" for name in SPLITS))
    if told := leakage(rows, parameters.method):
        get_run_logger().warning(told)
    left_out = {LINKING: count} if (count := len(listed) - len(rows)) else {}
    return workspace.write_table("splits", rows, left_out)
