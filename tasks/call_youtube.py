"""Task: make one call of the YouTube Data API."""

import os
from datetime import datetime
from typing import Any

from prefect import task
from prefect.tasks import exponential_backoff

from thumbtune.channel.source import Params
from thumbtune.channel.sources.youtube.api import RetryableYouTubeError, request_api
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.retries import only_on


@task(
    name="call-youtube",
    task_run_name="call-youtube {endpoint}",
    retries=4,
    retry_delay_seconds=exponential_backoff(
        float(os.environ.get("THUMBTUNE_YOUTUBE_BACKOFF_SECONDS", "2"))
    ),
    retry_jitter_factor=0.5,
    retry_condition_fn=only_on(RetryableYouTubeError),
    persist_result=False,
)
def call_youtube(
    workspace: Workspace,
    endpoint: str,
    params: Params,
    daily_quota: int,
    since: datetime | None = None,
) -> dict[str, Any]:
    """One API call, with retries for what passes."""
    return request_api(workspace, endpoint, params, daily_quota, since)
