"""Runs of a channel whose thumbnails come again, nearly the same: one split, and one fold."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from PIL import Image
from prefect import flow

from benchmarks.near_duplicates import captioned, cropped, recompressed
from tests.flow_runs import newest_run
from thumbtune.channel.lookup import identify
from thumbtune.clip.models import find_model
from thumbtune.data.splits import fold_numbers
from thumbtune.data.thumbnails import Example
from thumbtune.flows.training import collect
from thumbtune.parameters import TrainParameters
from thumbtune.sample import CHANNEL
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.caching import Stages

pytestmark = pytest.mark.usefixtures("prefect_harness")

COUNT = 48


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A folder with a few of the bundled channel's videos."""
    folder = tmp_path / "channel"
    folder.mkdir()
    rows = json.loads((CHANNEL / "manifest.json").read_text())[:COUNT]
    for row in rows:
        place = folder / row["image"]
        place.parent.mkdir(exist_ok=True)
        place.write_bytes((CHANNEL / row["image"]).read_bytes())
    (folder / "manifest.json").write_text(json.dumps(rows))
    return folder


def add(channel: Path, name: str, picture: Image.Image) -> None:
    """Add a video with a title of its own."""
    picture.save(channel / f"{name}.jpg", quality=90)
    rows = json.loads((channel / "manifest.json").read_text())
    rows.append({"id": name, "title": f"The story of {name}", "image": f"{name}.jpg"})
    (channel / "manifest.json").write_text(json.dumps(rows))


def examples(workspace: Workspace, channel: Path, method: str = "holdout") -> dict[str, Example]:
    """What a run comes to before it learns, by id."""
    parameters = TrainParameters(
        source="folder",
        channel=str(channel),
        workspace=str(workspace),
        split={"train": 0.5, "valid": 0.25, "min_rows": 2},
        evaluation={"method": method},
        negatives={"method": "none"},
    )

    @flow(name="collect")
    def run() -> list[Example]:
        identify(workspace, parameters)
        stages = Stages(workspace, refresh=False)
        found = collect(workspace, parameters, stages, find_model("sample"), None)
        return workspace.read_table(found[3], Example)

    return {row.id: row for row in run()}


def test_a_new_video_joins_the_one_whose_thumbnail_it_shows_again(
    workspace: Workspace, channel: Path
) -> None:
    before = examples(workspace, channel)
    ways = (cropped, recompressed, captioned)
    for number, row in enumerate(list(before.values())[:12]):
        picture = Image.open(workspace.place(row.image)).convert("RGB")
        add(channel, f"again-{number}", ways[number % 3](picture, random.Random(number)))
    after = examples(workspace, channel)
    assert {video: after[video].split for video in before} == {
        video: row.split for video, row in before.items()
    }
    for number, row in enumerate(list(before.values())[:12]):
        again = after[f"again-{number}"]
        assert (again.split, again.look) == (row.split, after[row.id].look)


def test_a_cover_of_half_of_the_videos_is_on_one_side_and_told(
    workspace: Workspace, channel: Path
) -> None:
    cover = Image.open(CHANNEL / json.loads((CHANNEL / "manifest.json").read_text())[0]["image"])
    for number in range(COUNT):
        add(channel, f"episode-{number}", recompressed(cover.convert("RGB"), random.Random(number)))
    rows = examples(workspace, channel)
    covers = [row for video, row in rows.items() if video.startswith("episode")]
    assert {row.split for row in covers} == {"train"}
    _, logs = asyncio.run(newest_run("collect"))
    [told] = [log.message for log in logs if "nearly" in log.message]
    assert "the most common one in 49 videos" in told


def test_what_is_nearly_the_same_is_in_one_fold(workspace: Workspace, channel: Path) -> None:
    for row in json.loads((channel / "manifest.json").read_text())[:20]:
        picture = Image.open(channel / row["image"]).convert("RGB")
        add(channel, f"again-{row['id']}", captioned(picture, random.Random(row["id"])))
    rows = examples(workspace, channel, "cross_fit")
    folds = dict(zip(rows, fold_numbers(list(rows.values()), seed=1).tolist(), strict=True))
    copies = {video: folds[f"again-{video}"] for video in rows if f"again-{video}" in rows}
    assert len(copies) > 15
    assert copies == {video: folds[video] for video in copies}
