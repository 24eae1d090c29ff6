"""The folder that holds what runs keep, and which results are used again."""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import Task, flow, task
from pydantic import BaseModel

from tests.s3_server import S3Server
from thumbtune.store.storage import remove_leftovers, replace_folder
from thumbtune.store.workspace import OutsideWorkspaceError, Table, Workspace, fingerprint
from thumbtune.tasks.caching import Stages, content_key


class Row(BaseModel):
    name: str
    number: int


ROWS = [Row(name="á 😱\n", number=1), Row(name="", number=-2)]


LOCATIONS = ["a folder", "memory", "s3"]


def make_location(request: pytest.FixtureRequest, kind: str) -> str:
    if kind == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        return f"s3://{s3.new_bucket()}/a/workspace"
    if kind == "memory":
        request.getfixturevalue("another_machine")
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("tmp_path") / "workspace")


@pytest.fixture(params=LOCATIONS)
def anywhere(request: pytest.FixtureRequest) -> Workspace:
    """A workspace in a local folder, in fsspec's memory, and in a bucket."""
    return Workspace.open(make_location(request, request.param))


@pytest.mark.slow
def test_a_table_comes_back_as_it_was(anywhere: Workspace) -> None:
    table = anywhere.write_table("rows", ROWS, dropped={"bad": 3})
    assert anywhere.read_table(table, Row) == ROWS
    assert (table.rows, table.dropped) == (2, {"bad": 3})
    assert table.is_whole(anywhere)


def test_equal_rows_give_the_same_file_and_others_another(anywhere: Workspace) -> None:
    first, again = (anywhere.write_table("rows", ROWS) for _ in range(2))
    assert first == again
    assert anywhere.write_table("rows", ROWS[::-1]).path != first.path


def test_a_table_whose_stored_bytes_are_damaged_is_known_and_written_again(
    anywhere: Workspace,
) -> None:
    table = anywhere.write_table("rows", ROWS)
    anywhere.write(table.path, b"{}")
    assert not table.is_whole(anywhere)
    assert anywhere.write_table("rows", ROWS).is_whole(anywhere)


def test_what_is_stored_is_there_until_it_is_removed(anywhere: Workspace) -> None:
    for path in ("folder/sub/b", "folder/a", "folder/.hidden", "other"):
        anywhere.write(path, path.encode())
    assert anywhere.names("folder") == ["a", "sub"]
    assert anywhere.names("nowhere") == []
    assert anywhere.has_all(["folder/a", "folder/sub", "other"])
    assert anywhere.missing(["folder/a", "nowhere"]) == {"nowhere"}
    assert anywhere.place("folder/sub/b").read_bytes() == b"folder/sub/b"
    assert not anywhere.place("nowhere").exists()
    for path in ("folder", "other", "nowhere"):
        anywhere.remove(path)
        assert not anywhere.has(path)
        with pytest.raises(FileNotFoundError):
            anywhere.read(f"{path}/a" if path == "folder" else path)


def test_a_file_is_created_by_one_of_several_writers(anywhere: Workspace) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: anywhere.create("record", str(n).encode()), range(8)))
    assert won.count(True) == 1
    assert anywhere.read("record") == str(won.index(True)).encode()


def test_a_finished_folder_takes_the_place_of_the_old_one(anywhere: Workspace) -> None:
    for name in ("old", "new"):
        folder = anywhere.root / "scratch"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / name).write_text(name)
        anywhere.put("folder", folder)
        assert not folder.exists()
    assert anywhere.names("folder/sub") == ["new"]
    assert anywhere.read("folder/sub/new") == b"new"
    assert [file.name for file in anywhere.place("folder").rglob("*")] == ["sub", "new"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOCATIONS)
def test_runs_that_open_a_workspace_at_once_agree_on_its_identity(
    request: pytest.FixtureRequest, kind: str
) -> None:
    location = make_location(request, kind)
    assert Workspace.find(location).id == ""
    with ThreadPoolExecutor(16) as pool:
        opened = set(pool.map(Workspace.open, [location] * 64))
    assert opened == {Workspace.find(location)}


def test_a_stored_file_may_be_read_by_whom_the_umask_lets(workspace: Workspace) -> None:
    table = workspace.write_table("rows", ROWS)
    plain = workspace.root / "plain"
    plain.touch()
    assert (workspace.root / table.path).stat().st_mode == plain.stat().st_mode


def test_a_new_workspace_is_a_folder_with_its_identity_and_nothing_else(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "w")
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


@pytest.mark.slow
@pytest.mark.parametrize("path", ["../there.jsonl", "/etc/passwd", "rows/../../there.jsonl", ""])
def test_a_stored_path_does_not_lead_out_of_the_workspace(anywhere: Workspace, path: str) -> None:
    anywhere.root.mkdir(parents=True, exist_ok=True)
    (anywhere.root.parent / "there.jsonl").write_text("")
    table = Table(path=path, fingerprint=fingerprint(""), rows=0)
    assert not table.is_whole(anywhere)
    assert not anywhere.has(path)
    with pytest.raises(OutsideWorkspaceError, match=r"leads out of the workspace .* Delete"):
        anywhere.read_table(table, Row)
    for ask in (anywhere.read, anywhere.remove, anywhere.names, anywhere.lock, anywhere.renew):
        with pytest.raises(OutsideWorkspaceError):
            ask(path)
    for write in (anywhere.write_file, anywhere.write, anywhere.create):
        with pytest.raises(OutsideWorkspaceError):
            write(path, b"x")
    with pytest.raises(OutsideWorkspaceError):
        anywhere.put(path, anywhere.root)


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "/", "//", ""])).map("/".join))
def test_a_place_is_below_the_workspace_or_an_error(path: str) -> None:
    root = Path("/somewhere/workspace")
    with contextlib.suppress(OutsideWorkspaceError):
        place = Workspace(location=str(root), id="").place(path)
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


@pytest.mark.usefixtures("prefect_harness")
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


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("change", CHANGES)
def test_a_result_is_not_used_for(workspace: Workspace, tmp_path: Path, change: str) -> None:
    ran: list[str] = []
    run(workspace, (numbered("count", 1, ran), 2))
    changed, call = CHANGES[change](workspace, tmp_path, ran)
    run(changed, call)
    assert len(ran) == 2


@pytest.mark.usefixtures("prefect_harness")
def test_an_input_that_changes_no_outcome_may_be_ignored(workspace: Workspace) -> None:
    ran: list[str] = []
    step = numbered("count", 1, ran, ignore=["workers"])
    run(workspace, (step, 2, 1))
    run(workspace, (step, 2, 8))
    assert len(ran) == 1


@pytest.mark.usefixtures("prefect_harness")
def test_refresh_runs_a_step_again(workspace: Workspace) -> None:
    ran: list[str] = []
    step = numbered("count", 1, ran)
    run(workspace, (step, 2))
    run(workspace, (step, 2), refresh=True)
    assert len(ran) == 2


@pytest.mark.usefixtures("prefect_harness")
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


@pytest.mark.usefixtures("prefect_harness")
def test_results_are_stored_as_json_without_pickle(
    workspace: Workspace, prefect_results: Path
) -> None:
    run(workspace, (numbered("as-json", 1, []), 1))
    [stored] = prefect_results.glob("as-json-v1-*")
    assert b'"serializer":{"type":"json"' in stored.read_bytes().replace(b" ", b"")


def test_an_input_without_defined_content_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no defined content"):
        content_key(1)(type("Context", (), {"task": None})(), {"x": object()})


def test_leftovers_are_looked_for_beside_a_busy_writer(workspace: Workspace) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for name in "abcdef":
                workspace.write(f"rows/{name}.jsonl", b"{}")

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        removed = [remove_leftovers(workspace.root) for _ in range(400)]
        stop.set()
        for writer in writers:
            writer.result()
    assert not any(removed)
