"""Parameters from the words of a command line, such as `@handle --training.epochs 3`."""

import argparse
import difflib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from thumbtune.errors import problems_of
from thumbtune.parameters import WatchParameters
from thumbtune.text.escaping import for_terminal

P = TypeVar("P", bound=BaseModel)

SHOWN = 10
"""So many wrong arguments are told at once."""
HELP, HELP_ALL = ("-h", "--help"), "--help-all"
OF_MOST_USE = (
    *("source", "model", "workspace", "refresh", "videos.min_duration_seconds"),
    *("features.precision", "training.recipe", "training.epochs", "training.learning_rate"),
    *("evaluation.method", "promotion.rule", "publish.model_repo"),
    *("sweep.trials", "sweep.folds", *WatchParameters.model_fields),
)
"""Parameters that `--help` tells; the others have defaults that few need to change."""


def parse_command_line(
    model: type[P],
    arguments: Sequence[str] | None = None,
    program: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> P:
    """Read parameters from command-line arguments.

    A word that follows no option is the channel. `--parameters FILE` reads a JSON file of
    parameters first; other arguments go before it. Exits with code 2 and a line for each wrong
    argument, or with 0 after `--help` or `--help-all`.

    Args:
        program: what the help calls the program.
        given: parameters that stand before all arguments, stages as dictionaries.
    """
    program = program or Path(sys.argv[0]).name
    words = list(sys.argv[1:] if arguments is None else arguments)
    if set(HELP) & set(words):
        _print_help(model, program)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--parameters", type=Path)
    try:
        file, rest = parser.parse_known_args(words)
        rest = ["--help" if word == HELP_ALL else word for word in _with_channel(rest, model)]
        values = {**(given or {}), **_read(file.parameters, model)}
        parsed: Any = CliApp.run(_command_line(model, program), cli_args=rest, **values)
    except ValidationError as error:
        _exit([f"--{field}: {said}" if field else said for field, said in problems_of(error)])
    except (SettingsError, argparse.ArgumentError) as error:
        _exit(_told(str(error).removeprefix("error parsing CLI: "), model))
    return model.model_validate(parsed.model_dump())


def _with_channel(words: Sequence[str], model: type[BaseModel]) -> list[str]:
    """The words, with `--channel` before the one that follows no option."""
    if "channel" not in model.model_fields:
        return list(words)
    takes_none = {option for option, field in _options(model) if field.annotation is bool}
    named, follows, bare = list[str](), False, 0
    for word in words:
        if not follows and not word.startswith("-"):
            named.append("--channel")
            bare += 1
        follows = word.startswith("--") and "=" not in word and word not in takes_none
        named.append(word)
    given = sum(word == "--channel" or word.startswith("--channel=") for word in named)
    if bare and given > 1:
        _exit(["--channel: give one channel. Each value of an option follows it."])
    return named


def _exit(lines: Sequence[str]) -> NoReturn:
    shown = list(lines[:SHOWN])
    if len(lines) > SHOWN:
        shown.append(f"{len(lines) - SHOWN} more are wrong. --help-all lists every parameter.")
    print(for_terminal("\n".join(shown)), file=sys.stderr)
    sys.exit(2)


def _told(said: str, model: type[BaseModel]) -> list[str]:
    """What argparse found, with the nearest option for each that does not exist."""
    unknown = said.removeprefix("unrecognized arguments: ")
    if unknown == said:
        return [f"{said.removeprefix('argument ')}. --help-all lists every parameter."]
    words = unknown.split(" ")
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    if not options:
        return [f"{said}. Each value follows its option, as in --channel @handle."]
    return [f"unrecognized arguments: {option}. {_nearest(option, model)}" for option in options]


def _nearest(option: str, model: type[BaseModel]) -> str:
    """The options that somebody may have meant; a stage's name is easily left out."""
    names = [name for name, _ in _options(model)]
    last = {name: f"--{name.rpartition('.')[2]}" for name in names}
    likely = difflib.get_close_matches(option, names, n=1, cutoff=0.75)
    likely += [name for name in names if difflib.get_close_matches(option, [last[name]], 1, 0.75)]
    meant = list(dict.fromkeys(likely))[:3]
    return f"Did you mean {' or '.join(meant)}?" if meant else "--help-all lists every parameter."


def _options(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Each option and its field; of a flag, what turns it off too."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _options(kind, f"{prefix}{name}.")
            continue
        yield f"--{prefix}{name}", field
        if kind is bool:
            yield f"--no-{prefix}{name}", field


ABOUT = "Every parameter, with its bounds: docs/parameters.md, or --help-all."


def _print_help(model: type[BaseModel], program: str) -> NoReturn:
    """The parameters that most runs need, each in a sentence."""
    fields = model.model_fields
    usage = f"{program}{' [channel]' if 'channel' in fields else ''} [--option value …]"
    told = argparse.ArgumentParser(
        usage=usage, description=inspect.getdoc(model), epilog=ABOUT, add_help=False
    )
    if "channel" in fields:
        told.add_argument("channel", nargs="?", help=_sentence(fields["channel"]))
    for option, field in _options(model):
        if option.removeprefix("--") in OF_MOST_USE:
            told.add_argument(option, **_shown(option, field))
    told.add_argument("--parameters", metavar="FILE", help="A JSON file of parameters, read first.")
    told.add_argument("--verbose", action="store_true", help="Show Prefect's log and tracebacks.")
    told.add_argument(HELP_ALL, action="store_true", help="Every parameter.")
    told.print_help()
    sys.exit(0)


def _shown(option: str, field: FieldInfo) -> dict[str, Any]:
    if field.annotation is bool:
        return {"action": "store_true", "help": _sentence(field)}
    default = field.default
    told = f" (default: {default})" if default not in (None, "", ()) else ""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    name = option.rpartition(".")[2].removeprefix("--").upper()
    metavar = "{" + ",".join(choices) + "}" if choices else name
    return {"metavar": metavar, "help": _sentence(field) + told}


def _sentence(field: FieldInfo) -> str:
    """The first sentence of a description, or all if it is a list of choices."""
    said = (field.description or "").replace("%", "%%")
    return re.split(r"(?<=[.])\s", said)[0].rstrip(".")


def _command_line(model: type[BaseModel], program: str) -> Any:
    class CommandLine(BaseSettings, model):  # type: ignore[valid-type, misc]
        model_config = SettingsConfigDict(
            extra="forbid",
            cli_prog_name=program,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_exit_on_error=False,
            nested_model_default_partial_update=True,
        )

        @classmethod
        def settings_customise_sources(cls, *args: Any, **sources: Any) -> tuple[Any, ...]:
            """No environment: a variable MODEL or SOURCE means something else."""
            return (sources["init_settings"],)

    CommandLine.__doc__ = (
        f"{inspect.getdoc(model)} --parameters FILE reads them from a JSON file first, such as the "
        "best_parameters.json of a sweep. --verbose shows Prefect's log and the tracebacks of "
        "errors."
    )
    return CommandLine


def _read(file: Path | None, model: type[BaseModel]) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        _exit([f"--parameters: {file} cannot be read as JSON: {error}"])
    if not isinstance(content, dict):
        _exit([f"--parameters: {file} holds no JSON object of parameters."])
    if unknown := [name for name in content if name not in model.model_fields]:
        # CliApp.run has parameters of its own that it would take them for
        _exit([f"--{name}: Extra inputs are not permitted (in {file})" for name in unknown])
    return content
