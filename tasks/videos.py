"""Step: list the channel's videos, from any source."""

from collections import Counter
from pathlib import Path
from typing import Any

from prefect import task
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from sample import CHANNEL
from tasks.caching import content_key
from tasks.parameters import TrainParameters, VideosParameters
from tasks.sources import Listing, SourceError, Video
from tasks.sources.folder import Tell, check_pictures, folder_stamp, list_folder
from tasks.sources.hub import list_hub
from tasks.sources.youtube import (
    QUOTA_UNITS,
    Origin,
    Params,
    call_youtube,
    close_listing,
    list_channel,
    open_listing,
    origin_of,
)
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
    match source:
        case "youtube":
            videos, unusable, work = _list_youtube(workspace, channel or "", parameters)
        case "hub":
            videos = list_hub(workspace, channel or "")
        case _:
            notes: list[str] = []
            videos, unusable = list_folder(_folder(source, channel), notes.append)
            work = " ".join(notes)
    kept, more = keep_long_form(videos, parameters.min_duration_seconds)
    dropped = unusable + more
    if not kept:
        end_listing(workspace, source, channel, parameters)
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise SourceError(
            f"channel: none of {dropped.total()} videos can be used ({reasons or 'none found'}). "
            "Choose another channel, or lower videos.min_duration_seconds."
        )
    return Listing(videos=kept, dropped=dict(dropped), work=work)


def end_listing(
    workspace: Workspace, source: str, channel: str | None, parameters: VideosParameters
) -> None:
    """The list is kept, so that a killed run finds it: the next one is asked for anew."""
    if source == "youtube":
        close_listing(workspace, channel or "", parameters.listing)


def keep_long_form(
    videos: list[Video], min_duration_seconds: float
) -> tuple[list[Video], Counter[str]]:
    """Keep videos that are long enough, have a title and a thumbnail, and come once."""
    kept: dict[str, Video] = {}
    dropped: Counter[str] = Counter()
    for video in videos:
        if video.id in kept:
            dropped["listed twice"] += 1
        elif video.duration_seconds is not None and video.duration_seconds < min_duration_seconds:
            dropped[f"shorter than {min_duration_seconds:g} s"] += 1
        elif not video.title:
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

    since = open_listing(workspace, channel, parameters.listing)

    def call(endpoint: str, params: Params) -> dict[str, Any]:
        answer = call_youtube(workspace, endpoint, params, parameters.daily_quota, since)
        origin = origin_of(answer)
        answers[origin] += 1
        units[endpoint] += 0 if origin == "kept" else QUOTA_UNITS[endpoint]
        return answer

    videos, dropped = list_channel(call, channel, parameters.listing)
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
    folder = _folder(parameters["source"], parameters["channel"])
    local = parameters["source"] != "youtube" and folder.is_dir()
    return f"{key}-{folder_stamp(folder)[:16]}" if local else key


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
    if listing.work and source == "folder":
        logger.warning(listing.work)
    logger.info(
        "Videos: %d found, %d kept (left out: %s)", found, len(listing.videos), reasons or "none"
    )
    return workspace.write_table("videos", listing.videos, listing.dropped, listing.work)
