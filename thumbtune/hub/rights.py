"""What the Hugging Face hub lets a token write, asked before anything is trained."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
from huggingface_hub import whoami
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from thumbtune.errors import UserError


class PublishError(UserError):
    """The hub refused; the message says what to do."""


class RetryablePublishError(UserError):
    """The hub failed for a passing cause."""


def check_right_to_write(token: str, repositories: Sequence[str]) -> None:
    """Ask the hub once whose token it is, and refuse what it surely may not write.

    A hub that fails just now may answer when the model is trained, so that is no reason to stop.

    Args:
        repositories: names such as owner/name.

    Raises:
        PublishError: the token is wrong, only reads, or is of somebody else.
    """
    for repository in repositories[:1]:
        try:
            with told_plainly(repository):
                user = whoami(token, cache=True)
        except RetryablePublishError:
            return
    for repository in repositories:
        if why := _why_not(user, repository):
            raise _refused(repository, why)


def _why_not(user: Mapping[str, Any], repository: str) -> str | None:
    """Why a user's token cannot write a repository; None if it can, or if that is unknown."""
    owner = repository.partition("/")[0].lower()
    access = (user.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        return "this token only reads"
    roles = {str(org.get("name")).lower(): org.get("roleInOrg") for org in user.get("orgs") or ()}
    if owner != str(user.get("name")).lower() and owner not in roles:
        return f"this token is {user.get('name')}'s"
    if roles.get(owner) == "read":
        return f"{user.get('name')} only reads in {owner}"
    if access.get("role") == "fineGrained" and not _is_granted(access, owner, repository):
        return "this fine-grained token has no write permission there"
    return None


def _is_granted(access: Mapping[str, Any], owner: str, repository: str) -> bool:
    """Whether a fine-grained token may write all that an owner has, or this repository."""
    granted = (access.get("fineGrained") or {}).get("scoped") or ()
    return any(
        "repo.write" in scope.get("permissions", ())
        and str(scope.get("entity", {}).get("name")).lower() in (owner, repository.lower())
        for scope in granted
    )


def _refused(repository: str, said: str) -> PublishError:
    return PublishError(
        f"publish: the hub refused to write {repository} ({said}). Set HF_TOKEN to a token with "
        "write permission for it (https://huggingface.co/settings/tokens), or choose a "
        "repository of your own."
    )


@contextmanager
def told_plainly(repo: str) -> Iterator[None]:
    """Turn the hub's errors into ours.

    Raises:
        PublishError: wrong token or no permission.
        RetryablePublishError: the hub does not answer.
    """
    try:
        yield
    except HFValidationError as error:
        raise PublishError(f"publish: {repo} is no repository name ({error}).") from None
    except OfflineModeIsEnabled:
        raise PublishError(
            f"publish: HF_HUB_OFFLINE is set, so {repo} cannot be written. Unset it, or leave out "
            "publish."
        ) from None
    except RuntimeError as error:  # what huggingface_hub makes of a failed upload of a large file
        if not isinstance(error.__cause__, (httpx2.HTTPError, OSError)):
            raise
        raise _explained(error.__cause__, repo) from None
    except (httpx2.HTTPError, ConnectionError, PermissionError, LocalEntryNotFoundError) as error:
        raise _explained(error, repo) from None


def _explained(error: Exception, repo: str) -> Exception:
    """The error to raise for one of huggingface_hub or of its storage, hf_xet."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403, 404) or isinstance(error, PermissionError):
        return _refused(repo, f"HTTP {status}" if status else "no access to its storage")
    if status and status < 500 and status not in (408, 409, 412, 429):
        said = getattr(error, "server_message", None) or "no reason given"
        return PublishError(f"publish: the hub refused {repo} (HTTP {status}: {said}).")
    cause = f"HTTP {status}" if status else type(error).__name__
    return RetryablePublishError(f"publish: the hub could not take {repo} just now ({cause}).")
