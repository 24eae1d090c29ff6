"""An error in the log of a Prefect server or worker fails a session."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server_logs import Logs, faults

SCHEDULER = """\
18:01:16.070 | ERROR   | docket.dependencies - ↩ [   192ms] schedule_deployments(){}
Traceback (most recent call last):
  File "scheduler.py", line 348, in schedule_recent_deployments
sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement; please supply …
"""
FAILED_RUN = """\
18:11:01.001 | INFO    | Flow run 'bold-owl' - Beginning flow run
18:11:02.001 | ERROR   | Flow run 'bold-owl' - Encountered an exception during execution:
Traceback (most recent call last):
  File "train_flow.py", line 1, in train
ValueError: no such channel
18:11:02.004 | WARNING | Task run 'fetch-videos-1' - Tried again
Traceback (most recent call last):
ConnectionError
18:11:02.009 | ERROR   | Task run 'fetch-videos-1' - Finished in state Failed()
18:11:03.001 | ERROR   | prefect.engine - Execution of flow run 'f00' exited with unexpected \
exception
Traceback (most recent call last):
ValueError: no such channel
18:11:03.102 | WARNING | prefect.workers - late
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return Logs(tmp_path).new("server")


def test_a_scheduler_that_fails_is_a_fault_with_its_file_line_and_text(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.new("server").write_text("Prefect starts\n" + SCHEDULER)
    logs.new("worker").write_text(FAILED_RUN)
    with pytest.raises(pytest.fail.Exception) as failed:
        logs.check()
    said = str(failed.value)
    assert "000-server.log:2: ERROR: docket.dependencies" in said
    assert "Can't evaluate bulk DML statement" in said
    assert "worker.log" not in said


@pytest.mark.parametrize(
    "text",
    [
        "18:01:16.070 | CRITICAL | prefect.server - gone",
        "18:01:16.070 | ERROR   | prefect.worker - Flow run 'x' - failed",
        "2026-11-25 18:01:16,070 | ERROR   | MainThread   | prefect._internal - gone",
        "18:01:16.070 | WARNING | prefect - odd\nTraceback (most recent call last):\nOSError",
        "18:01:16.070 | INFO    | Flow run 'x' - I\nTraceback (most recent call last):\nOSError",
        " 92%|██▏| 11/12\r 99%|██▏| 12/12 18:01:16.070 | ERROR   | prefect.worker - gone",
        "ERROR:    [Errno 98] address already in use",
        "Traceback (most recent call last):\nModuleNotFoundError",
        "╭───── Traceback (most recent call last) ─────╮\nModuleNotFoundError",
    ],
)
def test_so_is_each_error_or_traceback_that_no_run_has_told(log: Path, text: str) -> None:
    log.write_text(f"{text}\n18:01:17.000 | INFO    | prefect.server - goes on\n")
    assert len(faults(log)) == 1


def test_what_a_failing_run_tells_is_none(log: Path) -> None:
    log.write_text(FAILED_RUN)
    assert faults(log) == []


LOCKED = """\
18:37:37.071 | ERROR   | prefect.server - Encountered error during state validation
Traceback (most recent call last):
sqlite3.OperationalError: database is locked

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked
[SQL: INSERT INTO flow_run_state]
"""


def test_nor_is_a_moment_in_which_sqlite_has_another_writer(log: Path) -> None:
    log.write_text(LOCKED)
    assert faults(log) == []
    log.write_text(LOCKED + "\nTraceback (most recent call last):\nKeyError: 'state'\n")
    assert len(faults(log)) == 1


LEFT = (
    LOCKED.replace(
        "prefect.server - Encountered error during state validation",
        "uvicorn.error - Exception in ASGI application",
    )
    + """
During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker_channel.py", line 728, in close_worker_channel
    await websocket.close(code=policy.websocket_code, reason=close_reason.value)
starlette.websockets.WebSocketDisconnect
"""
)


def test_nor_is_a_workers_channel_that_it_closes_when_the_worker_is_gone(log: Path) -> None:
    log.write_text(LEFT)
    assert faults(log) == []
    for other in (LEFT + "KeyError: 'state'\n", LEFT.replace("close_worker_channel", "serve")):
        log.write_text(other)
        assert len(faults(log)) == 1


def test_a_session_without_faults_passes(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.new("worker").write_text(FAILED_RUN)
    logs.check()


HARMLESS = st.sampled_from(
    [
        "18:01:17.000 | INFO    | prefect.server - ERROR is but a word",
        "18:01:17.000 | DEBUG   | httpx - GET /",
        "18:01:17.000 | WARNING | prefect.server - slow",
        *FAILED_RUN.splitlines()[:2],
        "what a program prints",
        "a bar 10%\ra bar 20%",
        "",
    ]
)


@given(before=st.lists(HARMLESS), after=st.lists(HARMLESS))
def test_a_fault_is_found_at_its_line_whatever_stands_around_it(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str]
) -> None:
    log = tmp_path_factory.mktemp("log") / "server.log"
    log.write_text("\n".join([*before, SCHEDULER.rstrip(), *after]))
    [fault] = faults(log)
    assert fault.startswith(f"{log}:{len(before) + 1}: ERROR: docket.dependencies")
