"""A video keeps the split that it was given first, also beside another run."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tasks.assignments import assigned_before, keep_assigned
from tasks.parameters import SplitParameters, TrainParameters
from tasks.registry import Registry
from tasks.sources import Video
from tasks.splits import Assigned, SplitVideo, hash_splits
from tasks.thumbnails import Example
from tasks.workspace import Table, Workspace
from tests.test_registry import add

HASH = SplitParameters()


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return Registry(workspace, "youtube", "@tester")


def video(number: int, **changes: Any) -> Video:
    fields = {"id": f"v{number}", "title": f"title {number}", "thumbnails": {}, **changes}
    return Video.model_validate(fields)


def given(workspace: Workspace, split: str, *numbers: int) -> tuple[Table, Table]:
    """A list of videos, and a table that has all of them in one split."""
    videos = [video(number) for number in numbers]
    rows = [SplitVideo(**{**each.model_dump(), "split": split}) for each in videos]
    return workspace.write_table("videos", videos), workspace.write_table("splits", rows)


def split(videos: list[Video], before: list[Assigned]) -> list[SplitVideo]:
    splits = hash_splits(videos, HASH.train, HASH.valid, before)
    return [
        SplitVideo(**{**each.model_dump(), "split": name})
        for each, name in zip(videos, splits, strict=True)
    ]


def known(registry: Registry, videos: Table) -> dict[str, str]:
    table = assigned_before(registry, HASH, videos)
    return (
        {row.id: row.split for row in registry.workspace.read_table(table, Assigned)}
        if table
        else {}
    )


def test_of_two_runs_at_once_the_first_gives_a_new_video_its_split_and_the_other_takes_it(
    registry: Registry, workspace: Workspace
) -> None:
    first, second = given(workspace, "test", 1, 2), given(workspace, "train", 2, 3)
    assert known(registry, first[0]) == known(registry, second[0]) == {}
    assert keep_assigned(registry, HASH, *first)
    assert not keep_assigned(registry, HASH, *second)
    assert known(registry, second[0]) == {"v1": "test", "v2": "test"}
    before = workspace.read_table(assigned_before(registry, HASH, second[0]), Assigned)
    again = split([video(2), video(3)], before)
    assert again[0].split == "test"
    assert keep_assigned(registry, HASH, second[0], workspace.write_table("splits", again))


def test_runs_at_once_lose_no_assignment_and_agree_on_each_video(
    registry: Registry, workspace: Workspace
) -> None:
    def run(number: int) -> dict[str, str]:
        rows = [video(n) for n in range(number, number + 5)]
        videos = workspace.write_table("videos", rows)
        while True:
            table = assigned_before(registry, HASH, videos)
            before = workspace.read_table(table, Assigned) if table else []
            splits = split(rows, before)
            if keep_assigned(registry, HASH, videos, workspace.write_table("splits", splits)):
                return {row.id: row.split for row in splits}

    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(run, range(16)))
    kept = known(registry, workspace.write_table("videos", [video(99)]))
    assert kept.keys() == {f"v{n}" for n in range(20)}
    for splits in runs:
        assert splits.items() <= kept.items()


def test_what_all_versions_of_an_earlier_release_were_trained_with_counts(
    registry: Registry, workspace: Workspace
) -> None:
    """Where it kept no assignments; the newest version has not all of the videos."""
    for number, splits in ((1, {1: "test", 2: "train", 3: "valid"}), (2, {2: "train", 4: "test"})):
        version = add(registry, number, workspace)
        rows = [
            Example(**video(n).model_dump() | {"split": s, "title_neg": None}, image=f"{n}.jpg")
            for n, s in splits.items()
        ]
        examples = workspace.write_table("examples", rows)
        record = version.model_copy(update={"examples": examples, "parameters": OLD})
        path = workspace.root / registry.path / "versions" / f"{number:06}.json"
        path.write_text(record.model_dump_json())
    assert known(registry, workspace.write_table("videos", [video(9)])) == {
        "v1": "test",
        "v2": "train",
        "v3": "valid",
        "v4": "test",
    }


OLD = TrainParameters(channel="@tester", split=HASH)
