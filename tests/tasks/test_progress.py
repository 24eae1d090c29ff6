"""Long steps show how far they are: as an artifact of their run, with the time left."""

import time
from datetime import timedelta

import pytest
from prefect import flow, task
from prefect.runtime import flow_run

from tests.tasks.test_artifacts import read_artifacts
from thumbtune.progress import LISTENERS, ago, minutes, progress
from thumbtune.tasks.progress import Progress, post_progress


@task
def work(parts: int, first: float) -> None:
    shown = Progress("Encoding pictures", parts, first)
    for _ in range(parts):
        shown.advance(1)
        time.sleep(0.01)
    shown.end()


@flow
def working(first: float) -> str:
    work(4, first)
    return flow_run.id


@pytest.mark.usefixtures("prefect_harness")
def test_a_step_that_takes_long_has_an_artifact_that_ends_whole() -> None:
    [artifact] = read_artifacts(working(first=0))
    assert (artifact.type, artifact.data) == ("progress", 100)
    assert artifact.description == "Encoding pictures: 4 of 4"


@pytest.mark.usefixtures("prefect_harness")
def test_a_quick_step_has_none() -> None:
    assert read_artifacts(working(first=60)) == []


def test_the_time_left_is_told_at_the_rate_so_far() -> None:
    shown = Progress("Trials", 40)
    shown.began -= 60
    shown.done = 10
    assert shown.told == "Trials: 10 of 40, about 3 min left"


def test_outside_of_a_run_and_without_parts_nothing_is_posted() -> None:
    assert post_progress in LISTENERS
    with progress("Nothing", 0) as advance, progress("Something", 2) as another:
        advance(0)
        another(2)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "about 5 s"), (44, "about 45 s"), (200, "about 3 min"), (7300, "about 2.0 h")],
)
def test_a_time_to_wait_in_words(seconds: float, words: str) -> None:
    assert minutes(seconds) == words


def test_an_age_in_words() -> None:
    told = [ago(timedelta(minutes=age)) for age in (0, 1, 119, 120, 3000)]
    assert told == ["a moment ago", "1 minute ago", "1 hour ago", "2 hours ago", "2 days ago"]
