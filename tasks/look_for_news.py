"""Task: see cheaply whether a channel has enough new videos to train again."""

from prefect import task
from prefect.events import emit_event
from prefect.runtime import task_run

from thumbtune.channel.news import EVENT, News, find_news, with_fresh_list
from thumbtune.channel.registry import Registry
from thumbtune.channel.source import short_name
from thumbtune.parameters import TrainParameters, WatchParameters
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.call_youtube import call_youtube


def _of_channel() -> str:
    asked: TrainParameters = task_run.parameters["parameters"]
    return f"look-for-news {short_name(asked.source, asked.channel)}"


@task(name="look-for-news", task_run_name=_of_channel, persist_result=False)
def look_for_news(
    workspace: Workspace, parameters: TrainParameters, options: WatchParameters
) -> News:
    """Compare a channel's videos with those that its newest version knows."""
    return find_news(workspace, parameters, options, call_youtube)


def announce(workspace: Workspace, parameters: TrainParameters, news: News) -> None:
    """Emit the event on which the trigger in prefect.yaml starts training."""
    registry = Registry(workspace, parameters.source, parameters.channel)
    emit_event(
        event=EVENT,
        resource={"prefect.resource.id": f"thumbtune.channel.{registry.name}"},
        payload={
            "new": news.new,
            "parameters": with_fresh_list(parameters.located()).model_dump(mode="json"),
        },
    )
