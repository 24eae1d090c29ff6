"""What the Hugging Face hub's refusals mean to the user, for models and datasets alike."""

from collections.abc import Iterator
from typing import NamedTuple

import httpx2
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from thumbtune.names.model_name import Kind, neither_here_nor_there


class HubProblem(NamedTuple):
    """Why something cannot be had from the hub."""

    message: str
    """Names the parameter and the mend."""
    may_pass: bool
    """Another try may help."""


def hub_problem(error: BaseException, name: str, parameter: str, kind: Kind) -> HubProblem | None:
    """Explain an error of huggingface_hub or datasets, when there is no cached copy either.

    Args:
        name: hub id, as the user gave it.
        parameter: that holds the name.

    Returns:
        None if the error is not one of talking to the hub.
    """
    causes = list(_chain(error))
    what = _what(name, kind)
    if _is_gated(causes):
        return HubProblem(
            f"{parameter}: {what} is gated on the Hugging Face hub. Ask for access on its page "
            "and set HF_TOKEN to a token that has it.",
            may_pass=False,
        )
    if _has(causes, RepositoryNotFoundError, HFValidationError, DatasetNotFoundError):
        return not_found(name, parameter, kind)
    if _has(causes, OfflineModeIsEnabled) or (
        constants.HF_HUB_OFFLINE and _has(causes, ConnectionError)
    ):
        return HubProblem(
            f"{parameter}: {what} is not in the local cache and HF_HUB_OFFLINE is set. Run once "
            f"without HF_HUB_OFFLINE, or give the folder of a {kind} that is on this machine.",
            may_pass=False,
        )
    return _unanswered(causes, what, parameter, kind)


def not_found(name: str, parameter: str, kind: Kind) -> HubProblem:
    """There is nothing of this name that this user may see."""
    return HubProblem(neither_here_nor_there(name, parameter, kind), may_pass=False)


def _unanswered(
    causes: list[BaseException], what: str, parameter: str, kind: Kind
) -> HubProblem | None:
    """A refusal by its HTTP status, or no answer at all."""
    silent = (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError)
    failed = _has(causes, HfHubHTTPError) or _has(causes, *silent)
    if failed is None:
        return None
    status = failed.response.status_code if isinstance(failed, HfHubHTTPError) else None
    if status in (401, 403):
        return HubProblem(
            f"{parameter}: the Hugging Face hub refused {what} (HTTP {status}). Set HF_TOKEN to a "
            f"valid token that may read it, or unset HF_TOKEN for a public {kind}.",
            may_pass=False,
        )
    cause = f"HTTP {status}" if status else type(failed).__name__
    if status and status < 500 and status not in (408, 429):
        refused = f"{parameter}: the Hugging Face hub refused {what} ({cause})."
        return HubProblem(refused, may_pass=False)
    wait = "Wait a while, since it asks for fewer requests," if status == 429 else ""
    return HubProblem(
        f"{parameter}: {what} is not in the local cache and the Hugging Face hub does not "
        f"answer ({cause}). {wait or 'Check the network,'} or give the folder of a {kind} that is "
        "on this machine.",
        may_pass=True,
    )


def _what(name: str, kind: Kind) -> str:
    return name if kind == "model" else f"the dataset {name!r}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from; libraries wrap what says most."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _has(causes: list[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _is_gated(causes: list[BaseException]) -> bool:
    """Of a gated dataset only the words are left, once `datasets` has looked into its cache."""
    words = any(isinstance(e, DatasetNotFoundError) and "gated" in str(e) for e in causes)
    return words or _has(causes, GatedRepoError) is not None
