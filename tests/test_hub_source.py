"""Listing the videos of a dataset that was saved, or that is on the hub."""

import io
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

from tasks.parameters import ThumbnailsParameters, VideosParameters
from tasks.sources import SourceError
from tasks.sources.hub import list_hub
from tasks.thumbnails import ThumbnailStore
from tasks.videos import list_videos
from tasks.workspace import Workspace


def rows(*ids: str) -> Dataset:
    return Dataset.from_list(
        [
            {
                "video_id": video_id,
                "title": f"Title {video_id}",
                "thumbnail_url": f"https://i.ytimg.com/vi/{video_id}/hqdefault.jpg",
                "title_neg": f"Not {video_id}",
            }
            for video_id in ids
        ]
    )


def test_a_saved_dataset_keeps_its_splits_and_negatives(
    tmp_path: Path, workspace: Workspace
) -> None:
    saved = DatasetDict(train=rows("a", "b"), validation=rows("c"), test=rows("d"))
    saved.save_to_disk(tmp_path / "saved")
    videos = list_hub(workspace, str(tmp_path / "saved"))
    assert [video.split for video in videos] == ["train", "train", "valid", "test"]
    assert videos[0].title_neg == "Not a"
    assert videos[3].thumbnails == {"high": "https://i.ytimg.com/vi/d/hqdefault.jpg"}


def test_a_lone_split_divides_nothing(tmp_path: Path, workspace: Workspace) -> None:
    rows("a", "b").save_to_disk(tmp_path / "saved")
    assert [v.split for v in list_hub(workspace, str(tmp_path / "saved"))] == [None, None]


@pytest.mark.compatibility
def test_pictures_in_the_dataset_are_put_into_the_workspace(
    tmp_path: Path, workspace: Workspace
) -> None:
    file = io.BytesIO()
    Picture.new("RGB", (64, 48), "red").save(file, "PNG")
    features = Features({"video_id": Value("string"), "title": Value("string"), "image": Image()})
    row = {"video_id": "a", "title": "A", "image": {"bytes": file.getvalue(), "path": None}}
    Dataset.from_list([row], features=features).save_to_disk(tmp_path / "saved")
    [video] = list_hub(workspace, str(tmp_path / "saved"))
    assert workspace.read(video.thumbnails["file"]) == file.getvalue()
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    assert workspace.read(str(store.get(video).image)) == file.getvalue()


def test_a_dataset_cannot_name_a_file_of_this_machine(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "mine.png").write_bytes(b"not for a model")
    image = {"bytes": None, "path": str(tmp_path / "mine.png")}
    columns = {"bytes": Value("binary"), "path": Value("string")}
    features = Features({"video_id": Value("string"), "title": Value("string"), "image": columns})
    row = {"video_id": "a", "title": "A", "image": image}
    Dataset.from_list([row], features=features).save_to_disk(tmp_path / "saved")
    with pytest.raises(SourceError, match=r"image '.*mine\.png' lies outside of it"):
        list_hub(workspace, str(tmp_path / "saved"))


def test_a_missing_column_is_an_error_that_lists_the_columns(
    tmp_path: Path, workspace: Workspace
) -> None:
    Dataset.from_dict({"video_id": ["a"], "name": ["A"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        SourceError, match=r"lacks the column title, thumbnail_url .*video_id, name"
    ):
        list_hub(workspace, str(tmp_path / "saved"))


def test_a_dataset_that_is_nowhere_is_an_error_with_the_mend(workspace: Workspace) -> None:
    with pytest.raises(
        SourceError, match=r"channel: .*'nobody/nothing'.*(HF_HUB_OFFLINE|spelling)"
    ):
        list_videos(workspace, "hub", "nobody/nothing", VideosParameters())
