"""What Prefect's log shows of this project.

Prefect's engine logs what a task raises, and again what the flow raises, each with its traceback,
and then both states. Of a `UserError` that says nothing but where in our code it was found, so its
sentence stays as the one line of the flow run. All other errors keep their tracebacks.
"""

import logging
import os
import re
import sys
from typing import Any

from thumbtune.errors import VERBOSE, UserError, kinds_of, says_full
from thumbtune.store.disk import says_refused
from thumbtune.text.escaping import for_terminal

FINISHED = re.compile(
    r"(Finished in state \w+)\(['\"](?:Task|Flow) run encountered an exception:? "
)
"""How Prefect tells a state whose message is the exception's: name of the class, then its text."""


def is_for_the_user(error: BaseException | None) -> bool:
    """Whether an error needs no traceback: ours, a disk's, or parameters that Prefect refuses.

    What `thumbtune.store.disk` makes of a disk's error comes later, from the flow.
    """
    if isinstance(error, UserError):
        return True
    return type(error).__name__ == "ParameterTypeError" or _is_of_the_disk(str(error))


def _is_of_the_disk(text: str) -> bool:
    """Whether an error's text says that the workspace's disk is full, or cannot be written."""
    return says_full(text) or says_refused(text)


STOPPED = "Execution was aborted by a termination signal"
"""What Prefect says of a run that was cancelled, or whose worker is stopped: it is no error."""


class OneLine(logging.Filter):
    """Leaves of a user's error one record: the flow run's, which says the sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop or shorten a record of Prefect's engine; True if it is to be shown."""
        if os.environ.get(VERBOSE):
            return True
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            record.levelno, record.levelname = logging.INFO, "INFO"  # the user knows
            return True
        if STOPPED in str(record.msg):
            record.levelno, record.levelname = logging.INFO, "INFO"
            return not str(record.msg).startswith("Finished in state")
        if isinstance(record.msg, str) and (state := FINISHED.match(record.msg)):
            return self._finished(record, state)
        error = record.exc_info[1] if record.exc_info else None
        if not is_for_the_user(error):
            return True
        record.exc_info = record.exc_text = None
        said = str(record.msg)
        told_before = isinstance(error, UserError) and said.startswith("Engine execution exited")
        if told_before or said.startswith("Task run failed"):
            return False
        if said.startswith(("Encountered exception", "Engine execution exited")):
            record.msg, record.args = "%s", (str(error),)
        return True

    def _finished(self, record: logging.LogRecord, state: re.Match[str]) -> bool:
        said = record.msg[state.end() :]
        if said.partition(":")[0] not in {
            kind.__name__ for kind in kinds_of(UserError)
        } and not _is_of_the_disk(said):
            return True
        record.msg = state[1]
        return record.name != "prefect.task_runs"


class Harmless(logging.Filter):
    """Takes out of a record what a title or a server's answer would command to a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's text where need be; True."""
        said = record.getMessage()
        if (harmless := for_terminal(said)) != said:
            record.msg, record.args = "%s", (harmless,)
        return True


FILTERS = (OneLine(), Harmless())


def log_in_one_line() -> None:
    """Shorten what Prefect logs of a user's error in this process, now or when it is loaded."""
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        for each in FILTERS:
            logging.getLogger(name).addFilter(each)


class RunLog(logging.Handler):
    """Hands what the library logs to the log of the run that it works for, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record as the run's, or as it would be without this handler."""
        if run := run_logger():
            run.log(record.levelno, "%s", record.getMessage(), exc_info=record.exc_info)
        else:
            logging.getLogger().handle(record)


def run_logger() -> "logging.Logger | logging.LoggerAdapter[Any] | None":
    """The log of the run that this code works for; None if there is none."""
    if "prefect" not in sys.modules:  # so nothing runs
        return None
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return None


def log_in_runs() -> None:
    """The library's log belongs to the runs of this process."""
    library = logging.getLogger("thumbtune")
    library.addHandler(RunLog())
    library.setLevel(logging.INFO)
    library.propagate = False
