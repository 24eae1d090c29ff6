"""Task: find the videos whose thumbnails are the same, or nearly."""

from collections import Counter

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.data.near_duplicates import looks_of
from thumbtune.data.thumbnails import ThumbnailBatch
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="find-near-duplicates",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=2),
)
def find_near_duplicates(workspace: Workspace, channel: str, fetched: ThumbnailBatch) -> Table:
    """Look at the thumbnails of a channel: a table of `Look`.

    Args:
        channel: the name of its folder in the registry.
    """
    looks = looks_of(workspace, channel, fetched.thumbnails)
    videos = Counter(look.look for look in looks)
    alike = [count for count in videos.values() if count > 1]
    if alike:
        get_run_logger().info(
            "Thumbnails: %d are the same as another one, or nearly (%d pictures, the most common "
            "one in %d videos)",
            *(sum(alike), len(alike), max(alike)),
        )
    return workspace.write_table("alike", looks)
