"""The folder that holds what runs keep, and which results are used again."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import Task, flow, task
from pydantic import BaseModel

from tasks.caching import Stages, content_key
from tasks.workspace import (
    OutsideWorkspaceError,
    Table,
    Workspace,
    fingerprint,
    replace_folder,
)


class Row(BaseModel):
    name: str
    number: int


ROWS = [Row(name="á 😱\n", number=1), Row(name="", number=-2)]


def test_a_table_comes_back_as_it_was(workspace: Workspace) -> None:
    table = workspace.write_table("rows", ROWS, dropped={"bad": 3})
    assert workspace.read_table(table, Row) == ROWS
    assert (table.rows, table.dropped) == (2, {"bad": 3})
    assert table.is_whole(workspace)


def test_equal_rows_give_the_same_file_and_others_another(workspace: Workspace) -> None:
    first, again = (workspace.write_table("rows", ROWS) for _ in range(2))
    assert first == again
    assert workspace.write_table("rows", ROWS[::-1]).path != first.path


def test_a_damaged_table_is_known_and_written_again(workspace: Workspace) -> None:
    table = workspace.write_table("rows", ROWS)
    (workspace.root / table.path).write_text("{}")
    assert not table.is_whole(workspace)
    assert workspace.write_table("rows", ROWS).is_whole(workspace)


def test_a_stored_file_may_be_read_by_whom_the_umask_lets(workspace: Workspace) -> None:
    table = workspace.write_table("rows", ROWS)
    plain = workspace.root / "plain"
    plain.touch()
    assert (workspace.root / table.path).stat().st_mode == plain.stat().st_mode


def test_runs_that_open_a_workspace_at_once_agree_on_its_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(Workspace.open, [tmp_path / "w"] * 64))
    assert len({workspace.id for workspace in opened}) == 1
    assert [file.name for file in (tmp_path / "w").iterdir()] == ["workspace-id"]


def test_a_moved_workspace_keeps_its_identity_and_its_tables(tmp_path: Path) -> None:
    before = Workspace.open(tmp_path / "here")
    table = before.write_table("rows", ROWS)
    (tmp_path / "here").rename(tmp_path / "there")
    after = Workspace.open(tmp_path / "there")
    assert after.id == before.id
    assert after.read_table(table, Row) == ROWS


def test_folders_that_replace_one_another_at_once_leave_one_whole(tmp_path: Path) -> None:
    def replace(number: int) -> None:
        folder = tmp_path / f"new-{number}"
        folder.mkdir()
        for name in "ab":
            (folder / name).write_text(str(number))
        replace_folder(folder, tmp_path / "target")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(replace, range(40)))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert len({(tmp_path / "target" / name).read_text() for name in "ab"}) == 1


def test_what_killed_runs_left_half_written_is_removed_after_a_day(
    workspace: Workspace, tmp_path: Path
) -> None:
    table = workspace.write_table("rows", ROWS)
    mark = "0" * 32
    leftovers = [f"rows/.a.jsonl.{mark}", f"registry/.{mark}", f"indexes/x/.{mark}.jsonl"]
    models = [f"models/key/.model.{mark}", "models/key/.model.a1b2_c3d"]
    others = ["models/key/model.safetensors", "rows/.DS_Store", f"thumbnails/{mark}.jpg"]
    for path in [*leftovers, *others, *(f"{model}/weights" for model in models)]:
        (workspace.root / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / path).write_text("")
    (workspace.root / f".{mark}").symlink_to(tmp_path, target_is_directory=True)
    assert workspace.remove_leftovers() == 0
    for path in workspace.root.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    assert workspace.remove_leftovers() == 6
    assert not any((workspace.root / path).exists() for path in [*leftovers, *models])
    assert all((workspace.root / path).exists() for path in others)
    assert table.is_whole(workspace)


@pytest.mark.parametrize("path", ["../there.jsonl", "/etc/passwd", "rows/../../there.jsonl", ""])
def test_a_stored_path_does_not_lead_out_of_the_workspace(workspace: Workspace, path: str) -> None:
    (workspace.root.parent / "there.jsonl").write_text("")
    table = Table(path=path, fingerprint=fingerprint(""), rows=0)
    assert not table.is_whole(workspace)
    with pytest.raises(OutsideWorkspaceError, match=r"leads out of the workspace .* Delete"):
        workspace.read_table(table, Row)
    with pytest.raises(OutsideWorkspaceError):
        workspace.write_file(path, b"x")


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "/", "//", ""])).map("/".join))
def test_a_place_is_below_the_workspace_or_an_error(path: str) -> None:
    root = Path("/somewhere/workspace")
    with contextlib.suppress(OutsideWorkspaceError):
        place = Workspace(root=root, id="").place(path)
        assert Path(os.path.normpath(place)).is_relative_to(root)


@given(st.lists(st.text()), st.lists(st.text()))
def test_fingerprints_tell_any_two_lists_of_parts_apart(one: list[str], two: list[str]) -> None:
    assert (fingerprint(*one) == fingerprint(*two)) == (one == two)


def numbered(name: str, version: int, ran: list[str], **options: Any) -> Task[..., Table]:
    """A task that says when it really runs."""

    def step(workspace: Workspace, count: int, workers: int = 1) -> Table:
        ran.append(f"{name}-v{version}")
        return workspace.write_table(name, ROWS * count)

    return task(
        step,
        name=name,
        persist_result=True,
        result_serializer="json",
        cache_key_fn=content_key(version, **options),
    )


def run(workspace: Workspace, *calls: tuple[Any, ...], refresh: bool = False) -> Stages:
    stages = Stages(workspace, refresh)

    @flow(name="stages")
    def stages_flow() -> None:
        for step, *arguments in calls:
            stages.run(step, workspace, *arguments)

    stages_flow()
    return stages


def test_a_step_runs_once_for_equal_inputs_and_says_so(workspace: Workspace) -> None:
    ran: list[str] = []
    step = numbered("count", 1, ran)
    assert run(workspace, (step, 2)).summary() == "Stages executed: count. From the cache: none."
    assert run(workspace, (step, 2)).summary().startswith("Nothing to do")
    assert ran == ["count-v1"]


Change = Callable[[Workspace, Path, list[str]], tuple[Workspace, tuple[Any, ...]]]
CHANGES: dict[str, Change] = {
    "another argument": lambda w, path, ran: (w, (numbered("count", 1, ran), 3)),
    "another task with equal arguments": lambda w, path, ran: (w, (numbered("other", 1, ran), 2)),
    "a raised version": lambda w, path, ran: (w, (numbered("count", 2, ran), 2)),
    "another workspace": lambda w, path, ran: (
        Workspace.open(path / "another"),
        (numbered("count", 1, ran), 2),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_is_not_used_for(workspace: Workspace, tmp_path: Path, change: str) -> None:
    ran: list[str] = []
    run(workspace, (numbered("count", 1, ran), 2))
    changed, call = CHANGES[change](workspace, tmp_path, ran)
    run(changed, call)
    assert len(ran) == 2


def test_an_input_that_changes_no_outcome_may_be_ignored(workspace: Workspace) -> None:
    ran: list[str] = []
    step = numbered("count", 1, ran, ignore=["workers"])
    run(workspace, (step, 2, 1))
    run(workspace, (step, 2, 8))
    assert len(ran) == 1


def test_refresh_runs_a_step_again(workspace: Workspace) -> None:
    ran: list[str] = []
    step = numbered("count", 1, ran)
    run(workspace, (step, 2))
    run(workspace, (step, 2), refresh=True)
    assert len(ran) == 2


def test_a_cached_result_whose_file_is_gone_or_damaged_is_made_again(workspace: Workspace) -> None:
    ran: list[str] = []
    step = numbered("count", 1, ran)
    run(workspace, (step, 2))
    [file] = (workspace.root / "count").iterdir()
    for spoil in (file.unlink, lambda: file.write_text("half a ta")):
        spoil()
        stages = run(workspace, (step, 2))
        assert "executed: count" in stages.summary()
    assert len(ran) == 3
    assert run(workspace, (step, 2)).summary().startswith("Nothing to do")


def test_results_are_stored_as_json_without_pickle(
    workspace: Workspace, prefect_results: Path
) -> None:
    run(workspace, (numbered("as-json", 1, []), 1))
    [stored] = prefect_results.glob("as-json-v1-*")
    assert b'"serializer":{"type":"json"' in stored.read_bytes().replace(b" ", b"")


def test_an_input_without_defined_content_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no defined content"):
        content_key(1)(type("Context", (), {"task": None})(), {"x": object()})
