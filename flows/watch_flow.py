"""The watch: start training where a channel has enough new videos.

Run it on a schedule (prefect.yaml), or as `thumbtune watch --start here` from cron.
"""

if __name__ == "__main__":
    from thumbtune.flows.early import begin

    begin("watch")

import gc
import sys

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, State

from thumbtune.channel.lookup import identify
from thumbtune.channel.news import News, read_channels, with_fresh_list
from thumbtune.channel.registry import Registry
from thumbtune.errors import UserError
from thumbtune.flows.command_line import Arguments, Given, run_script
from thumbtune.flows.runners import on_the_command_line
from thumbtune.parameters import TrainParameters, WatchParameters, takes
from thumbtune.store.disk import disk_errors_explained
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.call_youtube import call_youtube
from thumbtune.tasks.fetch_thumbnails import fetch_thumbnails
from thumbtune.tasks.look_for_news import announce, look_for_news
from thumbtune.tasks.notifications import notify_failure
from thumbtune.tasks.runs import tag_run
from thumbtune.text.escaping import in_cells

# What loads torch is imported where it is used: most watches find nothing, and take a third of
# the time without it.


class WatchError(UserError):
    """Some channels could not be watched; the others were."""


@flow(
    name="watch",
    flow_run_name="watch {channels}",
    persist_result=False,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
@takes(WatchParameters)
def watch(options: WatchParameters) -> State[list[News]]:
    """Look for new videos of every channel, and start training where there are enough."""
    tag_run()
    news: list[News] = []
    watched: dict[tuple[str, str, str | None], str] = {}
    rows: list[dict[str, str | int]] = []
    failed: list[str] = []
    channels = read_channels(options.channels)
    if not channels:
        get_run_logger().warning("%s lists no channels yet", options.channels)
    for parameters in channels:
        name = parameters.channel or parameters.source
        try:
            with disk_errors_explained(parameters.workspace):
                workspace = Workspace.open(parameters.workspace)
                channel = identify(workspace, parameters, call_youtube, at_any_age=True)
                first = watched.setdefault((str(workspace), channel.source, channel.id), name)
                if first != name:
                    get_run_logger().warning(
                        "%s is the same channel as %s, and is watched once. Remove one from %s",
                        *(name, first, options.channels),
                    )
                    continue
                found = watch_channel(workspace, parameters, options)
        except Exception as error:  # one channel's trouble is not the others'
            trace = None if isinstance(error, UserError) else error
            get_run_logger().warning("%s: %s", name, error, exc_info=trace)
            failed.append(f"{name}: {error}")
            continue
        get_run_logger().info("%s: %s", name, found.why)
        news.append(found)
        started = "yes" if found.train else "no"
        rows.append({"channel": name, "new": found.new, "training": started, "why": found.why})
    create_table_artifact(in_cells(rows), key="watch", description=told(options, news))
    if failed:
        raise WatchError("; ".join(failed))
    return Completed(data=news, message=told(options, news))


def told(options: WatchParameters, news: list[News]) -> str:
    """What the watch found, for the state of its run."""
    if not news:
        return f"{options.channels} lists no channels yet: add yours."
    new, started = sum(each.new for each in news), sum(each.train for each in news)
    return f"Channels: {len(news)}; new videos: {new}; trainings started: {started}."


def watch_channel(
    workspace: Workspace, parameters: TrainParameters, options: WatchParameters
) -> News:
    """Look at one channel, and start its training if it is due."""
    news: News = look_for_news(workspace, parameters, options)
    if news.train and options.start == "event":
        announce(workspace, parameters, news)
    elif news.train:
        from thumbtune.flows.train_flow import train

        train(**dict(with_fresh_list(parameters)))
        gc.collect()  # reference cycles of one training are small, those of hundreds are not
    elif news.videos:
        index_videos(workspace, parameters, news.videos)
    return news


def index_videos(workspace: Workspace, parameters: TrainParameters, videos: Table) -> None:
    """New videos can be found by the champion before a model is trained on them."""
    from thumbtune.flows.training import thumbnail_calls
    from thumbtune.tasks.index_thumbnails import index_thumbnails
    from thumbtune.use.indexing import entries_of

    champion = Registry(workspace, parameters.source, parameters.channel).champion()
    if champion:
        calls = thumbnail_calls(workspace, videos, parameters)
        batches = [fetch_thumbnails(*call) for call in calls]
        index_thumbnails(workspace, champion, entries_of(workspace, videos, batches))


def main(arguments: Arguments = None, given: Given = None) -> int:
    """Run the flow from the command line; 0 if every channel was watched."""
    return run_script(WatchParameters, watch_all, arguments, given)


def watch_all(options: WatchParameters) -> None:
    """Run the flow; a wrong file of channels shows before Prefect starts."""
    read_channels(options.channels)
    with on_the_command_line():
        watch(**dict(options))


if __name__ == "__main__":
    sys.exit(main())
