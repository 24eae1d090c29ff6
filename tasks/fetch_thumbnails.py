"""Task: fetch and verify thumbnails."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.channel.listing import Video
from thumbtune.data.thumbnails import ThumbnailBatch, ThumbnailStore
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.progress import progress
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="fetch-thumbnails",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=4, ignore=["refresh"]),
)
def fetch_thumbnails(
    workspace: Workspace,
    videos: list[Video],
    parameters: ThumbnailsParameters,
    refresh: bool = False,
) -> ThumbnailBatch:
    """Fetch and verify the thumbnails of one batch of videos.

    Args:
        refresh: download again what is in the workspace.
    """
    store = ThumbnailStore(workspace, parameters, refresh)
    thumbnails = []
    shown = progress("Thumbnails", len(videos))
    with store.session, store.once, ThreadPoolExecutor(parameters.concurrency) as pool, shown as on:
        for thumbnail in pool.map(store.get, videos):
            thumbnails.append(thumbnail)
            on(1)
    usable = sum(thumbnail.image is not None for thumbnail in thumbnails)
    get_run_logger().info(
        "Thumbnails: %d of %d usable, %d downloaded", usable, len(videos), len(store.downloaded)
    )
    return ThumbnailBatch(
        thumbnails=thumbnails,
        downloaded=len(store.downloaded),
        checked_at=datetime.now(UTC),
        due=min(store.due, default=None),
    )
