"""Task: find the model to fine-tune, so that later steps agree on which weights they mean."""

from prefect import task
from prefect.tasks import exponential_backoff

from thumbtune.clip.models import HubUnreachableError, find_model
from thumbtune.store.model_reference import ModelReference
from thumbtune.tasks.retries import only_on


@task(
    name="resolve-model",
    task_run_name="resolve-model {parameter}",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=only_on(HubUnreachableError),
    persist_result=False,
)
def resolve_model(name: str, parameter: str) -> ModelReference:
    """Find a model; asked on every run, since a hub model may have moved."""
    return find_model(name, parameter)
