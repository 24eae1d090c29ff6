"""Which videos a version knows: those that it has met, and those that are the same over again."""

from collections.abc import Collection, Sequence

from thumbtune.channel.registry import Version
from thumbtune.data.splits import joined_by
from thumbtune.data.thumbnails import Example
from thumbtune.store.workspace import Workspace


def known_to(
    workspace: Workspace, version: Version, met: Collection[str], rows: Sequence[Example]
) -> set[str]:
    """Ids of the rows that a version has met, or that belong together with a video that it has met.

    So an upload of an old video under a new id is no new one, also where the old one is gone.

    Args:
        met: ids of videos of the version's run.
    """
    here = {row.id for row in rows}
    before = version.examples.is_whole(workspace)
    of_then = workspace.read_table(version.examples, Example) if before else []
    all_rows = [*rows, *(row for row in of_then if row.id not in here)]
    groups = joined_by([[*row.shares, f"picture {row.image}"] for row in all_rows]).tolist()
    known = {group for row, group in zip(all_rows, groups, strict=True) if row.id in met}
    return {row.id for row, group in zip(rows, groups, strict=False) if group in known}
