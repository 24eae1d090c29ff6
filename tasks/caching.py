"""Which results are used again: explicit cache keys, JSON results, no pickle.

A key is made of the task's name, its version and the content of its inputs. Prefect's own `INPUTS`
policy would let two tasks with equal arguments answer for each other, and `TASK_SOURCE` would not
see a change in a function that the task calls; so a step's version is raised by hand when what it
computes changes.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from prefect.context import TaskRunContext
from pydantic import BaseModel

from tasks.workspace import Table, Workspace, fingerprint

T = TypeVar("T")


def content_key(version: int, ignore: Iterable[str] = ()) -> Callable[..., str]:
    """Make a `cache_key_fn` for a task.

    Args:
        version: raise it when the task's outcome changes for equal inputs.
        ignore: names of task parameters that do not change the outcome.
    """
    ignored = frozenset(ignore)

    def cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        content = {
            name: _content(value) for name, value in parameters.items() if name not in ignored
        }
        text = json.dumps(content, sort_keys=True)
        return f"{context.task.name}-v{version}-{fingerprint(text)[:32]}"

    return cache_key


def _content(value: Any) -> Any:
    """What identifies a task's input, as JSON: a stored table by its content, not its place."""
    match value:
        case Workspace():
            return value.id
        case Table():
            return value.fingerprint
        case BaseModel() if hasattr(value, "fingerprint"):
            return value.fingerprint
        case BaseModel():
            return value.model_dump(mode="json")
        case Path():
            return str(value)
        case list() | tuple():
            return [_content(item) for item in value]
        case None | str() | int() | float() | bool():
            return value
    raise TypeError(f"{type(value).__name__} has no defined content to make a cache key of")
