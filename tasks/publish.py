"""Task: push model and dataset to the Hugging Face hub."""

from prefect import task
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from thumbtune.channel.secrets import read_secret
from thumbtune.clip.models import folder_of
from thumbtune.data.thumbnails import Example
from thumbtune.hub.rights import RetryablePublishError
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import PublishParameters
from thumbtune.reporting.publishing import build_dataset, push_dataset, push_model
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.retries import only_on


@task(
    name="publish",
    task_run_name="publish",
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=only_on(RetryablePublishError),
    persist_result=False,
)
def publish(
    workspace: Workspace, parameters: PublishParameters, trained: TrainedModel, examples: Table
) -> list[str]:
    """Push what the parameters name; the addresses of the commits."""
    token = read_secret("HF_TOKEN")
    folder = trained.folder(workspace)
    commits = []
    if parameters.model_repo:
        workspace.place(f"{folder}/model/README.md")
        model = folder_of(trained.model, workspace)
        commits.append(push_model(model, parameters.model_repo, parameters.private, token))
    if parameters.dataset_repo:
        dataset = build_dataset(workspace, workspace.read_table(examples, Example))
        card = workspace.place(f"{folder}/dataset/README.md")
        commits.append(
            push_dataset(dataset, card, parameters.dataset_repo, parameters.private, token)
        )
    get_run_logger().info("Published: %s", ", ".join(commits))
    return commits
