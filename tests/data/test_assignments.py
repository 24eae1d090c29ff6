"""Which splits are kept: of runs at once the first one's, and what earlier versions were given."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect import flow

from tests.data.test_splits import video
from thumbtune.channel.listing import Video
from thumbtune.channel.registry import Registry
from thumbtune.data.assignments import FOLDER, Assignment, assigned_before, keep_assigned
from thumbtune.data.near_duplicates import Look
from thumbtune.data.splits import Assigned, Split, SplitVideo, hash_splits
from thumbtune.data.thumbnails import Example
from thumbtune.flows.training import split_as_before
from thumbtune.parameters import SplitParameters, TrainParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import Stages

SHARES = SplitParameters(train=0.5, valid=0.25, min_rows=2)
CHANNEL = [video(n) for n in range(48)]
SPLITS = hash_splits(CHANNEL, SHARES.train, SHARES.valid)


@pytest.fixture
def parameters(workspace: Workspace) -> TrainParameters:
    return TrainParameters(
        source="folder", channel="/videos", workspace=str(workspace), split=SHARES
    )


@pytest.fixture
def registry(workspace: Workspace, parameters: TrainParameters) -> Registry:
    return Registry(workspace, parameters.source, parameters.channel)


def split_in_flow(parameters: TrainParameters, videos: Sequence[Video], stages: Stages) -> Table:
    @flow(name="split")
    def run() -> Table:
        table = stages.workspace.write_table("videos", videos)
        looks = stages.workspace.write_table("alike", [])
        return split_as_before(stages.workspace, table, looks, parameters, stages)

    return run()


def splits_of(workspace: Workspace, table: Table) -> dict[str, Split]:
    return {row.id: row.split for row in workspace.read_table(table, SplitVideo)}


class Meanwhile(Stages):
    """Stages of a run, before whose first one another run splits a list of its own."""

    def __init__(self, workspace: Workspace, parameters: TrainParameters, videos: Sequence[Video]):
        super().__init__(workspace, refresh=False)
        self.others = [(parameters, videos)]
        self.other: Table | None = None

    def run(self, *args: Any, **options: Any) -> Any:
        while self.others:
            self.other = split_in_flow(*self.others.pop(), Stages(self.workspace, refresh=False))
        return super().run(*args, **options)


@pytest.mark.usefixtures("prefect_harness")
def test_of_two_runs_at_once_the_first_assignment_holds_and_the_second_reads_it(
    workspace: Workspace, registry: Registry, parameters: TrainParameters
) -> None:
    older = SPLITS.index("train")
    newer = SPLITS.index("test", older)
    alike = [each.model_copy(update={"title": "One"}) for each in (CHANNEL[older], CHANNEL[newer])]
    others = [each for each in CHANNEL if each.id not in {one.id for one in alike}]
    stages = Meanwhile(
        workspace, parameters, [*others, *alike]
    )  # of one title, placed by the older
    second = split_in_flow(parameters, [*others, alike[1]], stages)
    assert stages.other
    first = splits_of(workspace, stages.other)
    assert first[alike[1].id] == "train"
    assert splits_of(workspace, second).items() <= first.items()
    assert [record.number for record in registry.records(FOLDER, Assignment)] == [1]


def assignment(number: int, *rows: tuple[str, Split, str]) -> Assignment:
    assigned = [Assigned(id=id_, split=split, title=title) for id_, split, title in rows]
    shares = (SHARES.train, SHARES.valid)
    return Assignment(number=number, shares=shares, videos="", assigned=assigned)


def known(registry: Registry, videos: Table) -> dict[str, tuple[Split, str]]:
    table = assigned_before(registry, SHARES, videos).table
    assert table
    rows = registry.workspace.read_table(table, Assigned)
    return {row.id: (row.split, row.title) for row in rows}


def test_a_video_that_was_assigned_twice_has_its_first_split_and_its_newest_title(
    workspace: Workspace, registry: Registry
) -> None:
    records = [assignment(1, ("a", "test", "old")), assignment(2, ("a", "train", "new"))]
    for each in records:
        file = f"{registry.path}/{FOLDER}/{each.number:06}.json"
        workspace.write(file, each.model_dump_json().encode())
    videos = workspace.write_table("videos", CHANNEL)
    assert known(registry, videos) == {"a": ("test", "new")}


def test_the_picture_of_a_video_is_kept_also_while_its_thumbnail_fails(
    workspace: Workspace, registry: Registry
) -> None:
    videos = workspace.write_table("videos", CHANNEL[:2])
    splits = workspace.write_table(
        "splits", [SplitVideo(**row.model_dump() | {"split": "test"}) for row in CHANNEL[:2]]
    )
    for names in ["a", "", "", "b"]:
        pictures = dict.fromkeys((row.id for row in CHANNEL[:2]), names)
        rows = [Look(id=id_, look="", picture=picture) for id_, picture in pictures.items()]
        looks = workspace.write_table("looks", rows if names else [])
        last = len(registry.records(FOLDER, Assignment))
        assert keep_assigned(registry, SHARES, videos, splits, last, looks)
        kept = assigned_before(registry, SHARES, workspace.write_table("videos", [video(9)])).table
        assert kept
        expected = {"b"} if names == "b" else {"a"}
        assert {row.picture for row in workspace.read_table(kept, Assigned)} == expected
    assert len(registry.records(FOLDER, Assignment)) == 2  # nothing is written where none is new


def test_a_video_that_links_two_splits_is_given_none_for_ever(
    workspace: Workspace, registry: Registry
) -> None:
    old = assignment(1, ("a", "train", "One"), ("b", "test", "Two"))
    file = f"{registry.path}/{FOLDER}/000001.json"
    workspace.write(file, old.model_dump_json().encode())
    listed = [("a", "One", "A", "train"), ("b", "Two", "B", "test"), ("c", "one", "B", "train")]
    rows = [
        SplitVideo(id=id_, title=title, thumbnails={}, look=look, split=split)
        for id_, title, look, split in listed
    ]
    videos, splits = workspace.write_table("videos", rows), workspace.write_table("splits", rows)
    looks = workspace.write_table("looks", [])
    assert keep_assigned(registry, SHARES, videos, splits, 1, looks)
    assert known(registry, videos) == {"a": ("train", "One"), "b": ("test", "Two")}


def add_version(registry: Registry, weights: str, rows: Sequence[tuple[str, Split]]) -> None:
    """As an earlier thumbtune made one, which kept no splits."""
    examples = [
        Example(id=id_, title=id_, thumbnails={}, split=split, title_neg=None, image="a.jpg")
        for id_, split in rows
    ]
    model = ModelReference(name="clip", path=f"models/{weights}/model", fingerprint=weights)
    registry.add(
        model=model,
        untouched=model,
        parameters=TrainParameters(
            source=registry.source,
            channel=registry.channel,
            split=SHARES,  # type: ignore[arg-type]
        ),
        examples=registry.workspace.write_table("examples", examples),
        learned_from=[],
        seen=[],
        metrics={},
    )


@pytest.mark.parametrize("is_older", [False, True])
def test_all_earlier_versions_of_a_channel_tell_its_splits_and_the_newest_where_they_differ(
    workspace: Workspace, registry: Registry, is_older: bool
) -> None:
    add_version(registry, "1", [("a", "test"), ("b", "train")])
    if is_older:  # of the same channel, from when registries were named by its spelling
        versions = workspace.root / registry.path / "versions"
        (workspace.root / "registry" / "videos-1a2b3c4d").mkdir()
        versions.rename(workspace.root / "registry" / "videos-1a2b3c4d" / "versions")
    add_version(registry, "2", [("a", "valid"), ("c", "test")])
    videos = workspace.write_table("videos", CHANNEL)
    splits = {id_: split for id_, (split, _) in known(registry, videos).items()}
    assert splits == {"a": "valid", "b": "train", "c": "test"}


def test_runs_at_once_lose_no_assignment_and_agree_on_each_video(
    workspace: Workspace, registry: Registry
) -> None:
    looks = workspace.write_table("looks", [])

    def run(first: int) -> dict[str, Split]:
        rows = CHANNEL[first : first + 5]
        videos = workspace.write_table("videos", rows)
        while True:
            before = assigned_before(registry, SHARES, videos)
            known = workspace.read_table(before.table, Assigned) if before.table else []
            splits = hash_splits(rows, SHARES.train, SHARES.valid, known)
            pairs = zip(rows, splits, strict=True)
            split = [SplitVideo(**row.model_dump() | {"split": name}) for row, name in pairs]
            table = workspace.write_table("splits", split)
            if keep_assigned(registry, SHARES, videos, table, before.last, looks):
                return splits_of(workspace, table)

    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(run, range(16)))
    kept = assigned_before(registry, SHARES, workspace.write_table("videos", [video(99)])).table
    assert kept
    known = {row.id: row.split for row in workspace.read_table(kept, Assigned)}
    assert known.keys() == {row.id for row in CHANNEL[:20]}
    for splits in runs:
        assert splits.items() <= known.items()
