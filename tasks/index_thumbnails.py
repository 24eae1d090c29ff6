"""Task: bring the champion's index up to date."""

from prefect import task
from prefect.logging import get_run_logger

from thumbtune.channel.registry import Version
from thumbtune.store.workspace import Table, Workspace
from thumbtune.use.indexing import Entry, _read, channel_place, index_channel
from thumbtune.use.matching import Matcher, NoModelError


@task(name="index-thumbnails", task_run_name="index-thumbnails", persist_result=False)
def index_thumbnails(workspace: Workspace, version: Version, newer: Table) -> int | None:
    """Bring the index of a champion's channel up to date; the model is loaded if it has to be.

    Args:
        newer: rows of `Example` or `Entry`: all or new pictures of the channel.

    Returns:
        The number of pictures in the index; None if the version's files are gone.
    """
    logger = get_run_logger()
    entries = workspace.read_table(newer, Entry)
    index = _read(workspace, channel_place(version.model.fingerprint, version))
    if index and {entry.shown for entry in entries} <= {entry.shown for entry in index.entries}:
        return len(index)
    try:
        matcher = Matcher.of_version(workspace, version)
    except NoModelError as error:
        logger.warning("The index is not updated: %s", error)
        return None
    done = index_channel(workspace, version, matcher, entries)
    logger.info("Index: %d pictures, %d of them new", done.pictures, done.added)
    return done.pictures
