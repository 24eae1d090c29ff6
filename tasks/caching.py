"""Which results are used again: explicit cache keys, JSON results, no pickle.

A key is made of the task's name, its version and the content of its inputs. Prefect's own `INPUTS`
policy would let two tasks with equal arguments answer for each other, and `TASK_SOURCE` would not
see a change in a function that the task calls; so a step's version is raised by hand when what it
computes changes.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from pydantic import BaseModel

from thumbtune.parameters import without_influence
from thumbtune.store.workspace import Table, Workspace, fingerprint


class Stored(Protocol):
    """A result that points to files in the workspace."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Whether all that it points to is still there, and as it was."""
        ...


Result = TypeVar("Result", bound=Stored)


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
    """What identifies a task's input, as JSON: a stored table by its content, not its place;
    parameters by those that have an influence."""
    match value:
        case Workspace():
            return value.id
        case Table():
            return value.fingerprint
        case BaseModel() if hasattr(value, "fingerprint"):
            return value.fingerprint
        case BaseModel():
            return value.model_dump(mode="json", exclude=without_influence(value))
        case Path():
            return str(value)
        case list() | tuple():
            return [_content(item) for item in value]
        case None | str() | int() | float() | bool():
            return value
    raise TypeError(f"{type(value).__name__} has no defined content to make a cache key of")


class Stages:
    """Runs the steps of one flow run, and tells which were done before.

    A cached result that points to files which are gone or damaged counts as not cached.
    """

    def __init__(self, workspace: Workspace, refresh: bool) -> None:
        self.workspace = workspace
        self.refresh = refresh
        self.made: list[Any] = []
        self.executed: Counter[str] = Counter()
        self.cached: Counter[str] = Counter()

    def run(
        self,
        step: Task[..., Result],
        *args: Any,
        will_do: Callable[[Result], bool] = lambda result: True,
        called: str = "",
    ) -> Result:
        """Run one step, or take its result from the cache.

        Args:
            called: what the task run is called, if not as the task.
            will_do: whether a cached result is good enough for this run, such as young enough.
        """
        step = step.with_options(task_run_name=called or step.name)
        state: Any = step.with_options(refresh_cache=self.refresh)(*args, return_state=True)
        return self._settle(step, state, args, will_do)

    def map(
        self,
        step: Task[..., Result],
        calls: Sequence[tuple[Any, ...]],
        called: Sequence[str] = (),
    ) -> list[Result]:
        """Run one step several times side by side, each with its own arguments and name."""
        step = step.with_options(refresh_cache=self.refresh)
        futures = [
            step.with_options(task_run_name=name).submit(*args)
            for args, name in zip(calls, called or [step.name] * len(calls), strict=True)
        ]
        for future in futures:
            future.wait()
            if not future.state.is_final():
                future.result()  # raises why it will not end: Dask's worker died
        return [
            self._settle(step, future.state, args)
            for future, args in zip(futures, calls, strict=True)
        ]

    def _settle(
        self,
        step: Task[..., Result],
        state: State,
        args: tuple[Any, ...],
        will_do: Callable[[Result], bool] = lambda result: True,
    ) -> Result:
        found = self._whole(state) if state.name == "Cached" else None
        if found is not None and will_do(found):
            self.cached[step.name] += 1
            return found
        self.executed[step.name] += 1
        if state.name == "Cached":
            result: Result = step.with_options(refresh_cache=True)(*args)
        else:
            result = state.result()  # raises what the step raised
        self.made.append(result)
        return result

    def _whole(self, state: State) -> Any:
        """A cached result, or None if it cannot be read, or points to files that are not whole."""
        try:
            result: Any = state.result()
            return result if result.is_whole(self.workspace) else None
        except Exception:  # whatever a damaged file makes Prefect's and pydantic's readers raise
            return None

    def was_made(self, result: Any) -> bool:
        """Whether this run made a result, rather than found it."""
        return any(result is made for made in self.made)

    def summary(self) -> str:
        """Which steps ran and which did not need to, for the log."""
        if not self.executed:
            return "Nothing to do: every stage was already done for these parameters and inputs."
        return f"Stages executed: {_names(self.executed)}. From the cache: {_names(self.cached)}."


def _names(counts: Counter[str]) -> str:
    names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
    return ", ".join(names) or "none"
