"""What a script that runs a flow shows of Prefect's log, and where it keeps the rest."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from platformdirs import user_log_path
from prefect.logging.handlers import PrefectConsoleHandler

from thumbtune.flows.command_line import CONSOLE_LEVEL, QUIET, is_quiet
from thumbtune.text.escaping import for_terminal

KEPT = 20
"""So many log files stay."""
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


@contextmanager
def quiet_console() -> Iterator[Path | None]:
    """What is told to people, warnings and errors are printed; all is in a file, which is given.

    Of the rest a terminal shows the newest line, for a while.
    """
    if not is_quiet():
        yield None
        return
    root = logging.getLogger()
    newest = NewestLine() if sys.stderr.isatty() else logging.NullHandler()
    file = _log_file()
    handlers = [newest, Told(), *([_to_file(file)] if file else [])]
    root.handlers[:0] = handlers  # the first makes room for what the others print
    try:
        with _only_warnings(root):
            yield file
    finally:
        for handler in handlers:
            handler.close()
            root.removeHandler(handler)


def _log_file() -> Path | None:
    """A new file for the log of this process; None where none can be made."""
    folder = user_log_path("thumbtune", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: 1 - KEPT]:
            old.unlink(missing_ok=True)
        file = folder / f"{datetime.now():%Y-%m-%d %H-%M-%S} {os.getpid()}.log"
        file.touch()
    except OSError:  # a home that cannot be written to is no reason to stop
        return None
    return file


def _to_file(file: Path) -> logging.Handler:
    handler = logging.FileHandler(file, encoding="utf-8", errors="replace")
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


@contextmanager
def _only_warnings(root: logging.Logger) -> Iterator[None]:
    """In this process and in those that it starts."""
    consoles = [each for each in root.handlers if isinstance(each, PrefectConsoleHandler)]
    levels = [console.level for console in consoles]
    before = os.environ.get(CONSOLE_LEVEL)
    os.environ[CONSOLE_LEVEL] = QUIET
    for console in consoles:
        console.setLevel(QUIET)
    try:
        yield
    finally:
        for console, level in zip(consoles, levels, strict=True):
            console.setLevel(level)
        if before is None:
            del os.environ[CONSOLE_LEVEL]


class Told(logging.Handler):
    """Prints what a run tells people before it is over: records with the attribute `told`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, if it is one."""
        if getattr(record, "told", False):
            print(for_terminal(record.getMessage()), flush=True)


class NewestLine(logging.Handler):
    """Shows on a terminal what is done just now, in one line that the next one overwrites."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line, or clear it for a warning that another handler prints."""
        is_news = record.levelno < logging.WARNING and record.name.startswith("prefect")
        line = for_terminal(record.getMessage()).partition("\n")[0] if is_news else ""
        self._show(line[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Leave nothing of it."""
        self._show("")
        super().close()

    def _show(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
