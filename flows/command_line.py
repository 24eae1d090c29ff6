"""A flow as a script: a user's mistake is told early, in one line, and last.

What needs neither PyTorch nor Prefect is checked before they are imported, which takes seconds.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel

from thumbtune.arguments import parse_command_line
from thumbtune.errors import VERBOSE, UserError
from thumbtune.imports import end_imports
from thumbtune.text.escaping import for_terminal

P = TypeVar("P", bound=BaseModel)

FLAG = "--verbose"
CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
"""Prefect's own setting, which the processes of Dask and Ray inherit."""
QUIET = "WARNING"
INTERRUPTED = "Interrupted. What is stored is kept: the same command goes on from there."
NO_SERVER = "Failed to reach API at "
"""How Prefect says, in a RuntimeError, that PREFECT_API_URL leads to no server."""


Arguments = Sequence[str] | None
"""Words of a command line; None for those of this process."""
Given = Mapping[str, Any] | None
"""Parameters that stand before all arguments."""


def tell_mistakes(
    model: type[P],
    check: Callable[[P], None] | None = None,
    arguments: Arguments = None,
    program: str | None = None,
    given: Given = None,
) -> P:
    """The parameters; ends this process with a message if they cannot lead to a run.

    Args:
        model: what the arguments are read as.
        check: raises a `UserError` for what can be known before Prefect starts.
        program: what its help calls it.
    """
    sys.excepthook = _say_when_interrupted  # the imports that follow take seconds
    parameters = read_arguments(model, arguments, given, program)
    if FLAG not in _words(arguments) and is_quiet():
        os.environ[CONSOLE_LEVEL] = QUIET  # for Prefect, which is imported soon
    if check and (code := exit_code(lambda: check(parameters))):
        sys.exit(code)
    return parameters


def run_script(
    model: type[P], run: Callable[[P], None], arguments: Arguments = None, given: Given = None
) -> int:
    """Read the arguments and run; the exit code.

    With `--verbose` all that Prefect logs is shown, and the tracebacks of a user's errors.
    """
    end_imports()  # which `thumbtune.flows.early` has begun
    parameters = read_arguments(model, arguments, given)
    if FLAG not in _words(arguments):
        return exit_code(lambda: run(parameters))
    with verbose():
        return exit_code(lambda: run(parameters))


def read_arguments(
    model: type[P], arguments: Arguments = None, given: Given = None, program: str | None = None
) -> P:
    """The parameters that arguments name; exits with code 2 where they are wrong."""
    words = [word for word in _words(arguments) if word != FLAG]
    return parse_command_line(model, words, program, given)


def _words(arguments: Arguments) -> Sequence[str]:
    return sys.argv[1:] if arguments is None else arguments


@contextmanager
def verbose() -> Iterator[None]:
    """Logs are not shortened, here and in processes that are started within."""
    before = os.environ.get(VERBOSE)
    os.environ[VERBOSE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VERBOSE]


def is_quiet() -> bool:
    """Whether Prefect's log is not printed, unless `--verbose` or the environment asks for it."""
    asked = os.environ.get(VERBOSE) or os.environ.get("PREFECT_LOGGING_LEVEL")
    return not asked and os.environ.get(CONSOLE_LEVEL, QUIET) == QUIET


def exit_code(run: Callable[[], None]) -> int:
    """Run; 0, or what a shell is told, after a message whose last line says what to do."""
    try:
        run()
    except KeyboardInterrupt:
        print(f"\nthumbtune: {INTERRUPTED}", file=sys.stderr)
        return 130
    except UserError as error:
        print(for_terminal(f"\nthumbtune: {error}"), file=sys.stderr)
        return 1
    except Exception as error:
        print(for_terminal(f"\nthumbtune: {_unexpected(error)}"), file=sys.stderr)
        return 1
    return 0


def _unexpected(error: Exception) -> str:
    said = str(error)
    if NO_SERVER in said:
        place = said.partition(NO_SERVER)[2].partition(" ")[0].rstrip("./")
        return (
            f"PREFECT_API_URL: no Prefect server answers at {place}. Start it with `prefect server "
            "start`, or unset PREFECT_API_URL."
        )
    print(for_terminal("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    return said


def _say_when_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(f"\nthumbtune: {INTERRUPTED}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
