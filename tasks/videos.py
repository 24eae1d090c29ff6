"""Step: list the channel's videos, from any source."""

from collections import Counter
from pathlib import Path
from typing import Any

from prefect import task
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from sample import CHANNEL
from tasks.caching import content_key
from tasks.channels import forget_channel, identify_here
from tasks.identifying import resolve
from tasks.parameters import TrainParameters, VideosParameters
from tasks.sources import Listing, SourceError, Video
from tasks.sources.folder import Tell, check_pictures, folder_stamp, list_folder
from tasks.sources.hub import list_hub, local_folder
from tasks.sources.youtube import (
    QUOTA_UNITS,
    ChannelNotFoundError,
    Origin,
    Params,
    call_youtube,
    close_listing,
    list_channel,
    open_listing,
    origin_of,
)
from tasks.titles import is_blank
from tasks.workspace import Table, Workspace


def list_videos(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> Listing:
    """List the videos of a source that are of use for learning.

    A list of YouTube's that was made goes on from the stored answers until `end_listing`.

    Raises:
        SourceError: the source cannot be read as asked, or nothing is left of it.
    """
    unusable: Counter[str] = Counter()
    work = ""
    notes: list[str] = []
    match source:
        case "youtube":
            videos, unusable, work = _list_youtube(workspace, channel or "", parameters)
        case "hub":
            videos = list_hub(workspace, channel or "", notes.append)
        case _:
            videos, unusable = list_folder(_folder(source, channel), notes.append)
    kept, more = keep_long_form(videos, parameters.min_duration_seconds)
    dropped = unusable + more
    if not kept:
        end_listing(workspace, source, channel, parameters)
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise SourceError(
            f"channel: none of {dropped.total()} videos can be used ({reasons or 'none found'}). "
            "Choose another channel, or lower videos.min_duration_seconds."
        )
    return Listing(videos=kept, dropped=dict(dropped), work=work, notes=notes)


def listed_as(workspace: Workspace, source: str, channel: str | None) -> str | None:
    """What a channel is listed by: of YouTube its id, so that all spellings share one list."""
    if source != "youtube":
        return channel
    return identify_here(workspace, source, channel).id or channel


def end_listing(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> None:
    """The list is kept, so that a killed run finds it: the next one is asked for anew."""
    if source == "youtube":
        close_listing(workspace, listed_as(workspace, source, channel) or "", parameters.listing)


def keep_long_form(
    videos: list[Video], min_duration_seconds: float
) -> tuple[list[Video], Counter[str]]:
    """Keep videos that are long enough, have an id, a title and a thumbnail, and come once."""
    kept: dict[str, Video] = {}
    dropped: Counter[str] = Counter()
    for video in videos:
        if video.id in kept:
            dropped["listed twice"] += 1
        elif video.duration_seconds is not None and video.duration_seconds < min_duration_seconds:
            dropped[f"shorter than {min_duration_seconds:g} s"] += 1
        elif not video.id:
            dropped["no id"] += 1
        elif is_blank(video.title):
            dropped["no title"] += 1
        elif not video.thumbnails:
            dropped["no thumbnail"] += 1
        else:
            kept[video.id] = video
    return list(kept.values()), dropped


def _list_youtube(
    workspace: Workspace, channel: str, parameters: VideosParameters
) -> tuple[list[Video], Counter[str], str]:
    units: Counter[str] = Counter()
    answers: Counter[Origin] = Counter()

    found = resolve(workspace, channel, parameters.daily_quota, get_run_logger().warning)
    since = open_listing(workspace, found.id, parameters.listing)

    def call(endpoint: str, params: Params) -> dict[str, Any]:
        answer = call_youtube(workspace, endpoint, params, parameters.daily_quota, since)
        origin = origin_of(answer)
        answers[origin] += 1
        units[endpoint] += 0 if origin == "kept" else QUOTA_UNITS[endpoint]
        return answer

    try:
        videos, dropped = list_channel(call, found, parameters.listing)
    except ChannelNotFoundError:
        forget_channel(workspace, found.id)
        raise
    get_run_logger().info("YouTube: %d quota units (%s)", units.total(), dict(units))
    work = f"{answers['fetched']} answers fetched, {answers['unchanged']} unchanged"
    if answers["kept"]:
        work += f", {answers['kept']} kept from a list begun before"
    return videos, dropped, work


def _folder(source: str, channel: str | None) -> Path:
    return CHANNEL if source == "sample" else Path(channel or "").expanduser()


def check_files(parameters: TrainParameters, tell: Tell) -> None:
    """Look at a folder's pictures before anything is downloaded; other sources have none yet.

    Raises:
        SourceError: the folder cannot be listed, or too many pictures are not there.
    """
    if parameters.source in ("folder", "sample"):
        folder = _folder(parameters.source, parameters.channel)
        videos, _ = list_folder(folder)
        kept, _ = keep_long_form(videos, parameters.videos.min_duration_seconds)
        check_pictures(folder, kept, parameters.thumbnails, tell)


_inputs_key = content_key(version=4)


def _key_of_inputs_and_files(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """A list of local videos is out of date as soon as one of the files changes."""
    free = {"expiration_hours": 0.0, "daily_quota": 1}  # these change nothing in the list
    asked = parameters["parameters"].model_copy(update=free)
    key = _inputs_key(context, {**parameters, "parameters": asked})
    folder = _local_folder(parameters["source"], parameters["channel"])
    return f"{key}-{folder_stamp(folder)[:16]}" if folder else key


def _local_folder(source: str, channel: str | None) -> Path | None:
    """The folder that videos are read from, if there is one."""
    if source == "hub":
        return local_folder(channel or "")[0]
    folder = _folder(source, channel)
    return folder if source != "youtube" and folder.is_dir() else None


@task(
    name="fetch-videos",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_key_of_inputs_and_files,
)
def fetch_videos(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> Table:
    """List the channel's videos: a table of `Video`."""
    listing = list_videos(workspace, source, channel, parameters)
    found = len(listing.videos) + sum(listing.dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in listing.dropped.items())
    logger = get_run_logger()
    logger.info(
        "Videos: %d found, %d kept (left out: %s)", found, len(listing.videos), reasons or "none"
    )
    for note in listing.notes:
        logger.warning(note)
    return workspace.write_table("videos", listing.videos, listing.dropped, listing.work)
