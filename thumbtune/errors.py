"""Errors that the user can mend. They are told in one line, without a traceback."""

from collections.abc import Iterator

from pydantic import ValidationError

VERBOSE = "THUMBTUNE_VERBOSE"
"""Environment variable that keeps Prefect's log as it is: `--verbose`, for child processes too."""

NO_SPACE = ("No space left on device", "Disk quota exceeded")
"""How errors of any library say that a disk is full."""


class UserError(Exception):
    """What the user can mend; the message names the field and the mend."""


class ParametersError(UserError, ValueError):
    """Parameters of a run that do not fit together; each is named with the mend."""


def problems_of(error: ValidationError) -> list[tuple[str, str]]:
    """What pydantic found: the name of each field, such as `training.epochs`, and what is wrong."""
    return [
        (".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, "))
        for problem in error.errors(include_url=False)
    ]


def says_full(text: str) -> bool:
    """Whether an error's text is about a full disk."""
    return any(words in text for words in NO_SPACE)


def kinds_of(kind: type[UserError]) -> Iterator[type[UserError]]:
    """A kind of errors, and all that are special cases of it, as far as they are loaded."""
    yield kind
    for special in kind.__subclasses__():
        yield from kinds_of(special)


class SourceError(UserError):
    """The source cannot be read as asked; the message names the parameter and the mend."""
