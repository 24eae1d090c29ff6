"""What a script that runs a flow shows of Prefect's log."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import PrefectConsoleHandler

from thumbtune.flows.command_line import CONSOLE_LEVEL, QUIET, is_quiet
from thumbtune.text.escaping import for_terminal


@contextmanager
def quiet_console() -> Iterator[None]:
    """Warnings and errors are printed; of the rest a terminal shows the newest line, for a while.

    Prefect keeps it all.
    """
    if not is_quiet():
        yield
        return
    root = logging.getLogger()
    newest = NewestLine() if sys.stderr.isatty() else logging.NullHandler()
    root.handlers.insert(0, newest)  # it makes room for what the others print
    try:
        with _only_warnings(root):
            yield
    finally:
        newest.close()
        root.removeHandler(newest)


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
