"""Versions of a channel's model, decisions on them, and one run at a time."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.forks import FORKS
from thumbtune.channel.registry import (
    MissingSourceError,
    Registry,
    UnknownVersionError,
    Version,
    registries,
)
from thumbtune.channel.source import registry_name
from thumbtune.parameters import TrainParameters
from thumbtune.store.model_reference import ModelReference, hash_of
from thumbtune.store.workspace import Table, Workspace


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return Registry(workspace, "youtube", "@tester")


def add(registry: Registry, number: int, workspace: Workspace) -> Version:
    folder = workspace.root / "models" / f"key{number}" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(f"weights {number}")
    model = ModelReference(name="clip (fine-tuned)", path=str(folder), fingerprint=hash_of(folder))
    return registry.add(
        model=model,
        untouched=ModelReference(name="clip", path="/clip", fingerprint="f"),
        parameters=TrainParameters(channel=registry.channel),
        examples=Table(path="examples/a.jsonl", fingerprint="a", rows=3),
        learned_from=["a", "b"],
        seen=["a", "b", "c"],
        metrics={"Recall@1": 0.5},
    )


def test_a_channels_folder_is_readable_and_its_own() -> None:
    names = [
        registry_name("youtube", "@tester"),
        registry_name("folder", "@tester"),
        registry_name("youtube", "@हिन्दी"),
        registry_name("folder", "../a channel/"),
        registry_name("sample", None),
    ]
    assert [name.rpartition("-")[0] for name in names] == [
        "tester",
        "tester",
        "हिन्दी",
        "a-channel",
        "sample",
    ]
    assert len(set(names)) == 5
    assert registry_name("youtube", "https://www.youtube.com/@Tester/videos") == names[0]


def test_versions_are_numbered_and_the_same_model_is_the_same_version(
    registry: Registry, workspace: Workspace
) -> None:
    first, second, again = (add(registry, n, workspace) for n in (1, 2, 1))
    assert (first.number, second.number, again) == (1, 2, first)
    assert registry.versions() == [first, second]
    with pytest.raises(UnknownVersionError, match=r"has no version 7; it has: 1, 2\."):
        registry.version(7)


def test_a_version_of_an_earlier_release_is_read(registry: Registry, workspace: Workspace) -> None:
    version = add(registry, 1, workspace)
    [record] = (workspace.root / registry.path / "versions").iterdir()
    stored = json.loads(record.read_text())
    stored["parameters"]["evaluation"]["bootstrap_samples"] = 2000
    stored["parameters"]["promotion"]["bootstrap_samples"] = 2000
    record.write_text(json.dumps(stored))
    assert Registry(workspace, "youtube", "@tester").versions() == [version]


def test_equal_weights_are_one_version_whatever_they_were_measured_on(
    registry: Registry, workspace: Workspace
) -> None:
    first = add(registry, 1, workspace)
    other = Table(path="examples/b.jsonl", fingerprint="b", rows=4, dropped={"truncated": 1})
    same = {name: value for name, value in first if name not in ("number", "created")}
    again = registry.add(**same | {"examples": other, "seen": ["a", "b", "c", "d"]})
    assert again == first


def test_the_champion_is_the_last_decision_and_the_history_is_kept(
    registry: Registry, workspace: Workspace
) -> None:
    assert registry.champion() is None
    first, second = add(registry, 1, workspace), add(registry, 2, workspace)
    registry.decide(1, None, "kept")
    assert registry.champion() is None
    registry.decide(2, 2, "promoted")
    assert registry.champion() == second
    registry.roll_back(1, "the other one misses the point")
    assert registry.champion() == first
    assert [(d.number, d.version, d.champion) for d in registry.decisions()] == [
        (1, 1, None),
        (2, 2, 2),
        (3, 1, 1),
    ]
    assert Registry(workspace, "youtube", "@other").champion() is None


def test_writers_at_once_lose_nothing(registry: Registry, workspace: Workspace) -> None:
    add(registry, 1, workspace)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: registry.decide(1, 1, str(n)), range(40)))
    decisions = registry.decisions()
    assert [decision.number for decision in decisions] == list(range(1, 41))
    assert {decision.why for decision in decisions} == {str(n) for n in range(40)}


def test_old_versions_lose_their_weights_but_not_their_record(
    registry: Registry, workspace: Workspace
) -> None:
    versions = [add(registry, n, workspace) for n in range(1, 7)]
    for champion in (1, 2):
        registry.decide(champion, champion, "promoted")
    assert registry.remove_old_models(keep=2) == [3, 4]
    assert registry.remove_old_models(keep=2) == []
    there = [v.number for v in versions if Path(v.model.path).exists()]
    assert there == [1, 2, 5, 6]
    assert registry.versions() == versions
    with pytest.raises(UnknownVersionError, match="weights of version 3 of tester-"):
        registry.roll_back(3, "")


@pytest.mark.slow
def test_weights_are_not_deleted_while_they_are_checked_for_a_rollback(
    registry: Registry, workspace: Workspace
) -> None:
    large = workspace.root / "models" / "key1" / "model" / "large.safetensors"
    large.parent.mkdir(parents=True)
    with large.open("wb") as file:
        file.truncate(300_000_000)  # of zeros, which take a while to check and no place
    [first, *_] = [add(registry, n, workspace) for n in (1, 2, 3)]
    with ThreadPoolExecutor(1) as pool:
        rollback = pool.submit(registry.roll_back, 1, "by hand")
        time.sleep(0.1)
        assert 2 in registry.remove_old_models(keep=1)
    was_refused = isinstance(rollback.exception(), UnknownVersionError)  # if it came too late
    assert first.model.is_there(workspace) is not was_refused


def test_weights_that_another_channel_keeps_are_not_deleted(
    registry: Registry, workspace: Workspace
) -> None:
    other = Registry(workspace, "youtube", "@other")
    add(other, 1, workspace)
    other.decide(1, 1, "promoted")
    shared, *_ = [add(registry, n, workspace) for n in range(1, 7)]
    assert registry.remove_old_models(keep=1) == [2, 3, 4, 5]
    assert shared.model.is_there(workspace)
    for n in range(7, 12):
        add(other, n, workspace)
        other.decide(n - 5, n - 5, "promoted")
    other.remove_old_models(keep=1)
    registry.remove_old_models(keep=1)
    assert not shared.model.is_there(workspace)


def test_a_damaged_record_of_another_channel_deletes_nothing_and_stops_nobody(
    registry: Registry, workspace: Workspace
) -> None:
    other = Registry(workspace, "youtube", "@other")
    add(other, 1, workspace)
    for n in range(1, 7):
        add(registry, n, workspace)
    record = workspace.root / other.path / "versions" / "000001.json"
    whole = record.read_bytes()
    record.write_bytes(whole[:100])
    assert registry.remove_old_models(keep=1) == []
    record.write_bytes(whole)
    assert registry.remove_old_models(keep=1) == [2, 3, 4, 5]


def test_a_decision_that_others_have_overtaken_is_not_written(
    registry: Registry, workspace: Workspace
) -> None:
    for n in (1, 2):
        add(registry, n, workspace)
    assert registry.decide_after(0, 1, 1, "promoted")
    registry.decide(1, None, "by hand")
    assert registry.decide_after(1, 2, 2, "promoted") is None
    assert [decision.champion for decision in registry.decisions()] == [1, None]
    assert registry.decide_after(2, 2, 2, "promoted")
    assert registry.decisions()[-1].champion == 2


def test_a_record_that_was_changed_deletes_nothing_outside(
    registry: Registry, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    [first, *_] = [add(registry, n, workspace) for n in range(1, 5)]
    file = workspace.root / registry.path / "versions" / "000001.json"
    file.write_text(file.read_text().replace(first.model.path, str(tmp_path / "mine")))
    assert registry.remove_old_models(keep=1) == [2, 3]
    assert (tmp_path / "mine").is_dir()


def hold(root: Path, held: Any) -> None:
    registry = Registry(Workspace.open(root), "youtube", "@tester")
    with registry.one_run_at_a_time(print):
        held.set()
        time.sleep(600)


@pytest.mark.slow
def test_a_second_run_waits_and_a_killed_one_blocks_nobody(
    registry: Registry, workspace: Workspace
) -> None:
    held = FORKS.Event()
    process = FORKS.Process(target=hold, args=(workspace.root, held))
    process.start()
    assert held.wait(60)
    told: list[str] = []
    with ThreadPoolExecutor(1) as pool:

        def run() -> float:
            with registry.one_run_at_a_time(told.append):
                return time.monotonic()

        waiting = pool.submit(run)
        time.sleep(1)
        assert not waiting.done()
        killed = time.monotonic()
        os.kill(process.pid or 0, signal.SIGKILL)
        assert killed < waiting.result(30)
    assert told == [f"Another run trains {registry.name}; waiting until it is done"]
    process.join()
    with Registry(workspace, "youtube", "@other").one_run_at_a_time(told.append):
        assert len(told) == 1


def test_a_channel_whose_source_is_not_installed_is_kept_and_leaves_the_others_alone(
    workspace: Workspace, version: Version
) -> None:
    theirs = workspace.root / "registry" / "theirs" / "versions" / "000001.json"
    theirs.parent.mkdir(parents=True)
    [own] = (workspace.root / "registry").glob("*/versions/000001.json")
    record = json.loads(own.read_text())
    record["parameters"] |= {"source": "elsewhere", "channel": "a channel"}
    theirs.write_text(json.dumps(record))
    [registry] = registries(workspace)
    assert registry.source == version.parameters.source
    assert registry.remove_old_models(1) == []
    with pytest.raises(MissingSourceError, match="source 'elsewhere', which is not installed"):
        named(workspace, "theirs").versions()


def named(workspace: Workspace, folder: str) -> Registry:
    """The registry of a folder, whoever's it is."""
    registry = Registry(workspace, "sample", None)
    registry._name = folder
    return registry
