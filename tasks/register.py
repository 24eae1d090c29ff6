"""Task: keep the trained model as a version of the channel."""

from prefect import task

from thumbtune.channel.registry import Registry, Version
from thumbtune.data.thumbnails import Example
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Table, Workspace


@task(name="register", task_run_name="register", persist_result=False)
def register(
    workspace: Workspace,
    parameters: TrainParameters,
    seen: list[str],
    examples: Table,
    plan: Plan,
    untouched: Evaluation,
    challenger: Evaluation,
) -> Version:
    """Keep the trained model as a version, before anything else can go wrong with another model.

    Args:
        seen: ids of all videos that the run has listed.
    """
    rows = workspace.read_table(examples, Example)
    judged = challenger.judged
    return Registry(workspace, parameters.source, parameters.channel).add(
        model=challenger.model,
        untouched=untouched.model,
        parameters=parameters,
        examples=examples,
        learned_from=[row.id for row in rows if row.split in {*plan.learns, "valid"}],
        seen=seen,
        metrics=judged.metrics,
        intervals=judged.intervals,
        gallery=judged.gallery,
        recipe=plan.candidate.told,
        answers=challenger.predictions if plan.method == "cross_fit" else None,
    )
