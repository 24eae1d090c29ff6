"""How far a step of many parts has come: a bar with the time left on a terminal, and listeners."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta

from tqdm import tqdm

Advance = Callable[[int], object]
"""Takes how many parts were done since the last call."""

LISTENERS: list[Callable[[str, int], AbstractContextManager[Advance]]] = []
"""Each is told what is done and of how many parts; `thumbtune.tasks` adds Prefect's artifacts."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show how far a step is, while it lasts; a step without parts shows nothing."""
    if not total:
        yield lambda count: None
        return
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc=what, disable=None))
        told = [bar.update, *(stack.enter_context(listen(what, total)) for listen in LISTENERS)]

        def advance(count: int) -> None:
            for each in told:
                each(count)

        yield advance


def minutes(seconds: float) -> str:
    """A time to wait, in words: it is an estimate."""
    if seconds < 90:
        return f"about {max(5 * round(seconds / 5), 5):.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def ago(age: timedelta) -> str:
    """How long something is past, in words."""
    passed = age.total_seconds() / 60
    for size, name in ((1440, "day"), (60, "hour"), (1, "minute")):
        if passed >= size:
            count = int(passed / size)
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "a moment ago"
