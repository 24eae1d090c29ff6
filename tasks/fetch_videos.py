"""Task: list the channel's videos, from any source."""

from typing import Any

from prefect import task
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from thumbtune.channel.source import source_of
from thumbtune.channel.videos import VideoList, list_videos, listing_begins
from thumbtune.parameters import VideosParameters
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import content_key
from thumbtune.tasks.call_youtube import call_youtube

_inputs_key = content_key(version=5)


def _key_of_inputs_and_files(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """A list of local videos is out of date as soon as one of the files changes."""
    key = _inputs_key(context, parameters)
    stamp = source_of(parameters["source"]).stamp(parameters["channel"] or "")
    return f"{key}-{stamp[:16]}" if stamp else key


@task(
    name="fetch-videos",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_key_of_inputs_and_files,
)
def fetch_videos(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> VideoList:
    """List the channel's videos: a table of `Video`."""
    listed_at = listing_begins(workspace, source, channel, parameters)
    listing = list_videos(workspace, source, channel, parameters, call_youtube)
    found = len(listing.videos) + sum(listing.dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in listing.dropped.items())
    logger = get_run_logger()
    logger.info(
        "Videos: %d found, %d kept (left out: %s)", found, len(listing.videos), reasons or "none"
    )
    for note in listing.notes:
        logger.warning(note)
    table = workspace.write_table("videos", listing.videos, listing.dropped, listing.work)
    return VideoList(**dict(table), listed_at=listed_at)
