"""The main flow: from a channel to a fine-tuned, measured and reported CLIP.

Run it as `python flows/train_flow.py --channel @handle`, from the Prefect UI, or on a schedule.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta

from prefect import flow, get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel

from tasks.artifacts import post_artifacts
from tasks.caching import Stages
from tasks.evaluation import Evaluation, evaluate
from tasks.freezing import count_trainable
from tasks.models import ModelReference, resolve
from tasks.negatives import mine_negatives
from tasks.parameters import TrainParameters, parse_command_line, takes
from tasks.publishing import publish
from tasks.report import FunnelStage, report
from tasks.sources import Video
from tasks.splits import split
from tasks.thumbnails import ThumbnailBatch, collect_examples, fetch_thumbnails
from tasks.training import train as fine_tune
from tasks.videos import fetch_videos
from tasks.workspace import Table, Workspace


class TrainRun(BaseModel):
    """What a run of the train flow gives."""

    model: str
    """Folder that `SentenceTransformer` loads."""
    report: str
    """File to open in a browser."""
    untouched: Evaluation
    fine_tuned: Evaluation
    stages: str
    """Which stages were executed and which came from the cache."""


# Four batches of thumbnails at a time, each with its own downloads side by side.
@flow(name="train", task_runner=ThreadPoolTaskRunner(max_workers=4))
@takes(TrainParameters)
def train(parameters: TrainParameters) -> TrainRun:
    """Fine-tune CLIP on one channel's titles and thumbnails, and measure what it gained."""
    workspace = Workspace.open(parameters.workspace)
    stages = Stages(workspace, parameters.refresh)

    # A wrong model or fragment shows here, before anything is fetched.
    model = resolve(parameters.model, "model")
    stages.run(count_trainable, model, parameters.training.trainable)

    videos = stages.run(
        fetch_videos.with_options(
            cache_expiration=timedelta(hours=parameters.videos.expiration_hours)
        ),
        workspace,
        parameters.source,
        parameters.channel,
        parameters.videos,
    )
    split_videos = stages.run(split, workspace, videos, parameters.split, parameters.seed)
    pairs = stages.run(
        mine_negatives,
        workspace,
        split_videos,
        parameters.negatives,
        text_model(parameters),
        parameters.seed,
    )
    batches = thumbnail_batches(stages, videos, parameters)
    examples = stages.run(
        collect_examples,
        workspace,
        pairs,
        batches,
        parameters.thumbnails.max_bad_share,
        parameters.split.min_rows,
    )
    trained = stages.run(
        fine_tune,
        workspace,
        model,
        examples,
        parameters.training,
        parameters.evaluation,
        parameters.seed,
    )
    untouched, fine_tuned = (
        stages.run(evaluate, workspace, which, examples, parameters.evaluation, parameters.seed)
        for which in (model, trained.model)
    )
