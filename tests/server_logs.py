"""What Prefect's servers and workers log is part of a test session's result.

A server can fail at all that it does by itself, such as scheduling, and still answer every
question. So each server and worker has a log, and a record of a level above WARNING in one of
them, or a traceback, fails the session.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

HEAD = re.compile(
    r"\d\d:\d\d:\d\d[.,]\d{3} \| (?P<level>[A-Z]+) *\| (?P<text>.*)"
    r"|^(?P<bare>ERROR|CRITICAL): .*"  # uvicorn, before Prefect has set the format
)
"""Anywhere in a line, since a progress bar does not end its own."""
TRACEBACK = "Traceback (most recent call last)"
OF_A_RUN = re.compile(r"(Flow|Task) run '")
"""What a run says itself. That it failed is its state, which the tests look at."""

EXPLAINED = {
    r"\Aprefect\.engine - Execution of flow run '[\w-]+' exited with unexpected exception\n": (
        "a run that fails, told once more by its process"
    ),
    r"\Aprefect\.runner\.flow_run_executor - Process exited with status code: 1\. "
    r"Process exited with a general error\.$": "and by its worker",
    r"(?s)\(sqlite3\.OperationalError\) database is locked\n(?!.*^Traceback)": (
        "SQLite has one writer at a time; Prefect's client asks again, and its services come back "
        "in their next round. A round that never gets through shows in what it should have done."
    ),
    r"(?s)\A[\w.]+ - Exception in ASGI application\n.*"
    r"\(sqlite3\.OperationalError\) database is locked\n.*, in close_worker_channel\n.*"
    r"^starlette\.websockets\.WebSocketDisconnect\s*\Z": (
        "a worker's channel that such a lock closes when the worker is gone; it polls all the same"
    ),
}
"""What may be logged all the same, and why."""


class Record(NamedTuple):
    """A line of a log, with those below it that have no head of their own."""

    line: int
    """Where it begins, counted from 1."""
    level: str
    """Empty for what was printed before the first record."""
    text: str


def records(lines: list[str]) -> Iterator[Record]:
    """The records of a log."""
    begin, level, text = 1, "", list[str]()
    for number, line in enumerate(lines, 1):
        if head := HEAD.search(line):
            yield Record(begin, level, "\n".join(text))
            begin, level = number, head["level"] or head["bare"]
            text = [head["text"] or line]
        else:
            text.append(line)
    yield Record(begin, level, "\n".join(text))


def is_fault(record: Record) -> bool:
    """Is it an error of the server or worker itself, and not explained?"""
    told_by_a_run = OF_A_RUN.match(record.text) and record.level not in ("DEBUG", "INFO")
    bad = record.level in ("ERROR", "CRITICAL") or TRACEBACK in record.text
    return (
        bad
        and not told_by_a_run
        and not any(re.search(each, record.text, re.MULTILINE) for each in EXPLAINED)
    )


def faults(log: Path) -> list[str]:
    """The faults of a log, each with its place."""
    lines = log.read_bytes().decode(errors="replace").split("\n")  # a bar goes back by \r
    return [
        f"{log}:{record.line}: {record.level}: {record.text}"
        for record in records(lines)
        if is_fault(record)
    ]


class Logs:
    """The logs of a session's servers and workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []

    def new(self, name: str) -> Path:
        """An empty file for the log of a process."""
        file = self.folder / f"{len(self.files):03}-{name}.log"
        file.touch()
        self.files.append(file)
        return file

    def check(self) -> None:
        """Fail if there is a fault in one of them."""
        if found := [fault for file in self.files for fault in faults(file)]:
            pytest.fail("Prefect logged errors:\n\n" + "\n\n".join(found), pytrace=False)
