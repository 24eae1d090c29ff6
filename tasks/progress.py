"""The progress of a long step as an artifact of its run, and as lines of its log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thumbtune.progress import Advance, minutes
from thumbtune.tasks.logs import run_logger

FIRST = 3.0
"""Seconds that a step lasts before it has an artifact: most take less."""
EVERY = 2.0
"""Seconds between two updates of the artifact."""
LOGGED = 30.0
"""Seconds between two lines of the log."""


class Progress:
    """Posts how far a step of the current run is."""

    def __init__(self, what: str, total: int, first: float = FIRST) -> None:
        self.what, self.total, self.done = what, total, 0
        self.began = time.monotonic()
        self.next_post, self.next_line = self.began + first, self.began + LOGGED
        self.artifact: Any = None

    def advance(self, count: int) -> None:
        """So many parts more are done."""
        self.done += count
        now = time.monotonic()
        if now >= self.next_post:
            self.post()
            self.next_post = now + EVERY
        if now >= self.next_line:
            if logger := run_logger():
                logger.info("%s", self.told)
            self.next_line = now + LOGGED

    @property
    def told(self) -> str:
        """In words, with the time left at the rate so far."""
        left = (time.monotonic() - self.began) / max(self.done, 1) * (self.total - self.done)
        rest = f", {minutes(left)} left" if self.done < self.total else ""
        return f"{self.what}: {self.done:,} of {self.total:,}{rest}"

    def post(self) -> None:
        """Make the artifact, or bring it up to date.

        It has no key, since that of a finished run is of no use to the next one's readers.
        """
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        share = 100 * self.done / self.total
        if self.artifact is None:
            self.artifact = create_progress_artifact(share, description=self.told)
        else:
            update_progress_artifact(self.artifact, share, description=self.told)

    def end(self) -> None:
        """Leave a whole bar, if there is one."""
        if self.artifact is not None and self.done == self.total:
            self.post()


@contextmanager
def post_progress(what: str, total: int) -> Iterator[Advance]:
    """Listen to a step of the library, if it works for a run."""
    if run_logger() is None:
        yield lambda count: None
        return
    progress = Progress(what, total)
    yield progress.advance
    progress.end()
