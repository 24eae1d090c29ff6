"""Which channel is meant: a channel is its id, however it is spelled.

A YouTube channel is its channel id, a folder the path that leads there in the end, a dataset of the
hub its name, in which capitals do not count.
"""

import json
import os
from pathlib import Path, PurePath

from thumbtune.channel.source import Identity, source_of
from thumbtune.store.workspace import Table, Workspace


def identify_here(workspace: Workspace, source: str, channel: str | None) -> Identity:
    """Which channel is meant, by what is known on this machine and in the workspace."""
    return source_of(source).identity(workspace, channel or "")


def spelled_alike(source: str, channel: str | None, source_2: str, channel_2: str | None) -> bool:
    """Whether two channels are one by their spelling alone."""
    alike = source_of(source).is_spelled_alike
    return source == source_2 and alike(channel or "", channel_2 or "")


def recorded_channel(workspace: Workspace, source: str, channel: str, examples: Table) -> str:
    """Which folder was meant by a relative path that an earlier thumbtune recorded.

    Its pictures tell: it is the present one, or the one that they were read from. A folder that is
    gone may have been moved: then the path means what it means here.

    Args:
        examples: rows of `Example`, recorded with it.
    """
    here = source_of(source).absolute(channel)
    if source != "folder" or here == channel or PurePath(channel).parts[:1] == ("~",):
        return here
    file = _first_picture(workspace, examples)
    if file is None or file.is_relative_to(here):
        return here
    names = PurePath(os.path.normpath(channel)).parts
    names = tuple(name for name in names if name != "..")
    fitting = [folder for folder in file.parents if folder.parts[-len(names) :] == names]
    there = fitting[0] if names and fitting else file.parent
    return str(there) if there.is_dir() else here


def _first_picture(workspace: Workspace, examples: Table) -> Path | None:
    try:
        with workspace.place(examples.path).open("rb") as rows:
            place = json.loads(rows.readline())["thumbnails"]["file"]
    except (OSError, ValueError, KeyError, TypeError):  # gone, damaged, or of no file
        return None
    return Path(str(place))
