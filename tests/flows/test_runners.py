"""The same flow on threads, Dask and Ray, whose workers are other processes."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from distributed import LocalCluster
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_ray.context import RemoteOptionsContext

from tests.test_user_errors import LINES
from thumbtune.channel.downloads import TooSlowError
from thumbtune.flows.runners import (
    BY_SETTING,
    TaskRunnerSettingError,
    task_runner_of_this_machine,
    with_a_gpu_each,
)
from thumbtune.flows.train_flow import main, train
from thumbtune.flows.training import TrainRun
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import Stages

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("prefect_harness")]


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    """The address of a cluster of two processes."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


LATE = "(fail pid="
"""What Ray still prints of an earlier test's step."""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A cluster of this machine."""
    ray.init("local", num_cpus=2, num_gpus=0, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(params=["threads", "dask", "ray"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The setting of the machine."""
    name: str = request.param
    if name == "dask":
        monkeypatch.setenv("THUMBTUNE_DASK_ADDRESS", request.getfixturevalue("dask"))
    if name == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv("THUMBTUNE_TASK_RUNNER", name)
    return name


def run(workspace: Path) -> TrainRun:
    """A quick run with several batches of thumbnails and partitions of features."""
    result: TrainRun = train(
        source="sample",
        model="sample",
        workspace=workspace,
        negatives={"text_model": "sample"},
        evaluation={"method": "holdout"},
        thumbnails={"batch_size": 100},
        features={"partition_size": 150},
        training={"recipe": "given", "epochs": 1, "learning_rate": 0.001},
    )
    return result


@pytest.fixture(scope="module")
def in_threads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainRun]:
    """A run without the setting, and its workspace."""
    workspace = tmp_path_factory.mktemp("threads")
    return workspace, run(workspace)


def metrics_of(run: TrainRun) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((Path(run.report).parent / "metrics.json").read_text())
    del metrics["training_seconds"]
    return metrics


def test_a_run_gives_the_same_on_every_task_runner(
    in_threads: tuple[Path, TrainRun], runner: str, tmp_path: Path
) -> None:
    first = run(tmp_path)
    assert "fetch-thumbnails (3)" in first.stages
    assert "encode-features (2)" in first.stages
    assert metrics_of(first) == metrics_of(in_threads[1])


def test_what_one_task_runner_has_done_the_others_do_not_do_again(
    in_threads: tuple[Path, TrainRun], runner: str
) -> None:
    workspace, _ = in_threads
    assert run(workspace).stages.startswith("Nothing to do")


@task
def fail(workspace: Workspace, number: int) -> Workspace:
    if number == 2:
        raise TooSlowError("number 2 cannot be had")
    return workspace


@task
def process() -> int:
    return os.getpid()


@flow(task_runner=BY_SETTING)
def map_what_fails(workspace: Workspace) -> None:
    Stages(workspace, refresh=False).map(fail, [(workspace, number) for number in range(3)])


@flow(task_runner=BY_SETTING)
def process_of_a_step() -> int:
    return process.submit().result()


@flow(task_runner=BY_SETTING)
def options_of_steps() -> dict[str, Any]:
    with with_a_gpu_each():
        return RemoteOptionsContext.get().current_remote_options


def test_what_a_mapped_step_raises_reaches_the_flow(workspace: Workspace, runner: str) -> None:
    with pytest.raises(TooSlowError, match="number 2 cannot be had"):
        map_what_fails(workspace)


def test_a_user_reads_one_sentence_of_what_fails_in_a_worker(
    runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "features").touch()  # where a folder should be
    options = ["--source", "sample", "--model", "sample", "--negatives.text_model", "sample"]
    assert main([*options, "--workspace", str(tmp_path)]) == 1
    said = capfd.readouterr().err.splitlines()
    told = [line for line in said if line.strip() and LATE not in line]
    assert len(told) <= LINES, "\n".join(told[:60])
    assert not [line for line in told if "Traceback" in line]
    assert told[-1].startswith("thumbtune: workspace: ")
    assert told[-1].endswith("or choose another workspace.")


def test_steps_run_in_the_workers(runner: str) -> None:
    assert (process_of_a_step() == os.getpid()) == (runner == "threads")


def test_on_a_ray_cluster_with_gpus_each_partition_has_one(
    runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options_of_steps() == {}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 2.0})
    assert options_of_steps() == ({"num_gpus": 1} if runner == "ray" else {})


@pytest.mark.parametrize("setting", [None, ""])
def test_without_the_setting_there_are_four_threads(
    setting: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THUMBTUNE_TASK_RUNNER", raising=False)
    if setting is not None:  # as `THUMBTUNE_TASK_RUNNER=` in .env
        monkeypatch.setenv("THUMBTUNE_TASK_RUNNER", setting)
    assert task_runner_of_this_machine() == ThreadPoolTaskRunner(max_workers=4)


def test_a_wrong_setting_is_one_sentence_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("THUMBTUNE_TASK_RUNNER", "slurm")
    assert main(["--source", "sample", "--workspace", str(tmp_path / "workspace")]) == 1
    assert capsys.readouterr().err.strip() == (
        "thumbtune: THUMBTUNE_TASK_RUNNER is 'slurm'. Set it to threads, dask or ray, or unset it."
    )
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_task_runner_that_is_not_installed_names_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THUMBTUNE_TASK_RUNNER", name)
    monkeypatch.setitem(sys.modules, f"prefect_{name}", None)  # as if it were not
    with pytest.raises(TaskRunnerSettingError, match=rf"pip install 'thumbtune\[{name}\]'"):
        task_runner_of_this_machine()


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_workers_need_a_prefect_server(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBTUNE_TASK_RUNNER", name)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(TaskRunnerSettingError, match=r"prefect server start.*PREFECT_API_URL"),
    ):
        task_runner_of_this_machine()
