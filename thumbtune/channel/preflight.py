"""What can be checked of a run before anything is downloaded, by need before Prefect starts.

The flows begin with these checks, and their command lines do so before they import PyTorch. The
spelling of the channel is checked before: by `TrainParameters`.
"""

import errno
import os
from pathlib import Path

from thumbtune.channel.secrets import read_secret
from thumbtune.channel.source import ReadSecret, Tell, say_nothing, source_of
from thumbtune.extras import check_extra
from thumbtune.hub.rights import check_right_to_write
from thumbtune.names.model_name import folder_named
from thumbtune.parameters import PublishParameters, TrainParameters
from thumbtune.store.storage import WorkspaceError, is_url
from thumbtune.store.workspace import Workspace


def check_training(
    parameters: TrainParameters, read: ReadSecret = read_secret, tell: Tell = say_nothing
) -> None:
    """Raise a `UserError` for what would stop a training that has not begun.

    Args:
        read: how secrets are read.
        tell: is given a sentence for each thing that will be left out.
    """
    _check_run(parameters, read, tell)
    check_publishing(parameters.publish, read)


def check_search(
    parameters: TrainParameters, read: ReadSecret = read_secret, tell: Tell = say_nothing
) -> None:
    """The same of a search for hyperparameters, which publishes nothing."""
    check_extra("sweep", "A search for hyperparameters")
    _check_run(parameters, read, tell)


def _check_run(parameters: TrainParameters, read: ReadSecret, tell: Tell) -> None:
    source_of(parameters.source).check(parameters, read, tell)
    check_models(parameters)
    check_workspace(parameters.workspace)


def check_models(parameters: TrainParameters) -> None:
    """Folders that are named as models hold one, and other names can be ids of the hub.

    Raises:
        ModelNotFoundError: it is not so.
    """
    named = {"model": parameters.model}
    if parameters.negatives.compares_titles:
        named["negatives.text_model"] = parameters.negatives.text_model
    for parameter, name in named.items():
        if name != "sample":
            folder_named(name, parameter)


def check_publishing(parameters: PublishParameters, read: ReadSecret = read_secret) -> None:
    """There is a token, and it may write what is to be pushed.

    Raises:
        MissingSecretError, PublishError: it is not so.
    """
    repositories = [name for name in (parameters.model_repo, parameters.dataset_repo) if name]
    if repositories and (token := read("HF_TOKEN")):
        check_right_to_write(token, repositories)


def check_workspace(location: str) -> None:
    """The workspace can be written to, or made; a bucket can be reached.

    Raises:
        WorkspaceError: it is not so.
    """
    if is_url(location):
        Workspace.find(location)
        return
    try:
        folder = Path(location).expanduser().absolute()
        folder.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a home that nobody has
        raise WorkspaceError(
            f"workspace: {location!r:.200} is no folder ({error}). Choose another."
        ) from None
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise _not_writable(there, errno.ENOTDIR)
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        raise _not_writable(there, errno.EROFS if read_only else errno.EACCES)


def _not_writable(place: Path, number: int) -> WorkspaceError:
    return WorkspaceError(
        f"workspace: {place} cannot be written ({os.strerror(number)}). Give this user the right "
        "to write there, or choose another workspace."
    )
