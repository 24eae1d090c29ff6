"""Task: write what came of a sweep."""

import pandas as pd
from prefect import task
from prefect.logging import get_run_logger

from thumbtune.channel.registry import Registry
from thumbtune.learning.last_sweep import as_found, keep_sweep
from thumbtune.learning.recipes import RecipeComparison, Sweep, Trial
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.figures import trial_slices
from thumbtune.reporting.report import Report
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import content_key


@task(
    name="sweep-report",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=2),
)
def write_sweep(
    workspace: Workspace, parameters: TrainParameters, sweep: Sweep, comparison: RecipeComparison
) -> Report:
    """Write the best parameters, the trials and the comparison beside the journal of a sweep.

    Args:
        parameters: of the sweep; the best ones stand in their place in the file.
    """
    keep_sweep(Registry(workspace, parameters.source, parameters.channel), sweep)
    trials = workspace.read_table(sweep.trials, Trial)
    best = as_found(parameters, sweep.best)
    contents = {
        "best_parameters.json": best.model_dump_json(indent=1).encode(),
        "trials.csv": pd.DataFrame([dict(trial) for trial in trials]).to_csv(index=False).encode(),
        "comparison.json": comparison.model_dump_json(indent=1).encode(),
        "trials.png": trial_slices(trials),
    }
    get_run_logger().info("Sweep: %s/%s", workspace, sweep.folder)
    return Report.write(workspace, sweep.folder, contents)
