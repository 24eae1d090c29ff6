"""When Prefect tries a failed task again."""

from collections.abc import Callable

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task


def only_on(error: type[Exception]) -> Callable[[Task, TaskRun, State], bool]:
    """Make a task's `retry_condition_fn`: retry after this error and after no other.

    It is a plain function on purpose: given a partial or a callable object, Prefect never retries
    and does not say so.
    """

    def is_worth_another_try(task: Task, run: TaskRun, state: State) -> bool:
        try:
            state.result()
        except error:
            return True
        except Exception:
            return False
        return False

    return is_worth_another_try
