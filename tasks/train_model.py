"""Task: fine-tune with sentence-transformers."""

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.clip.towers import Precision
from thumbtune.learning.candidates import Candidate
from thumbtune.learning.job import TrainingJob, train
from thumbtune.learning.processes import run_in_processes
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import EvaluationParameters, TrainingParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="train",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=10, ignore=["evaluation"]),
)
def train_model(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    candidate: Candidate,
    learns: list[str],
    parameters: TrainingParameters,
    evaluation: EvaluationParameters,
    seed: int,
    precision: Precision,
) -> TrainedModel:
    """Fine-tune a model on a table of `Example`, in this process or in several.

    Args:
        candidate: what is done to it.
        learns: the splits that it learns from.
        parameters: of these what trains, and in how many processes.
        precision: of the stored features.
    """
    job = TrainingJob(
        workspace=workspace,
        model=model,
        examples=examples,
        candidate=candidate,
        learns=tuple(learns),
        parameters=parameters,
        evaluation=evaluation,
        seed=seed,
        precision=precision,
    )
    logger = get_run_logger()
    if parameters.processes == 1 or candidate.recipe is None:
        trained = train(job, logger)
        assert trained
        return trained
    told = run_in_processes("thumbtune.learning.job", job, parameters.processes, logger.info)
    return TrainedModel.model_validate_json(told)
