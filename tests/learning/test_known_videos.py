"""Old videos under new ids are no new ones: neither in the field nor against a champion."""

import pytest

from tests.small_channel import add_version
from thumbtune.data.thumbnails import Example
from thumbtune.learning.field import score_later
from thumbtune.learning.known_videos import known_to
from thumbtune.store.workspace import Workspace


def uploaded_again(row: Example, what: str) -> Example:
    """Under a new id, with its title or its picture or the look of it."""
    same = {
        "title": {"title": f" {row.title.upper()}", "image": "thumbnails/0.jpg"},
        "picture": {"title": f"Again {row.id}"},
        "look": {"title": f"Again {row.id}", "image": "thumbnails/0.jpg"},
    }[what]
    return row.model_copy(update={"id": f"again-{row.id}", "look": f"look of {row.id}", **same})


@pytest.mark.parametrize("what", ["title", "picture", "look"])
@pytest.mark.parametrize("gone", [False, True])
def test_an_upload_of_what_was_met_is_known(workspace: Workspace, what: str, gone: bool) -> None:
    version = add_version(workspace)
    old, other = workspace.read_table(version.examples, Example)[:2]
    old = old.model_copy(update={"look": f"look of {old.id}"})
    if gone:
        table = workspace.write_table("examples", [old, other])
        version = version.model_copy(update={"examples": table})
    again = uploaded_again(old, what)
    rows = [again, other] if gone else [old, again, other]
    assert known_to(workspace, version, {old.id}, rows) - {old.id} == {again.id}
    assert known_to(workspace, version, {other.id}, rows) == {other.id}


def test_uploads_of_old_videos_are_not_scored_in_the_field(workspace: Workspace) -> None:
    version = add_version(workspace)
    rows = workspace.read_table(version.examples, Example)
    again = [uploaded_again(row, "picture") for row in rows[:10]]
    table = workspace.write_table("examples", [*rows, *again])
    assert score_later(workspace, version, table, "float32", 1) is None
