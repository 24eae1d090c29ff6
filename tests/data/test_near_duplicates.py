"""Thumbnails that are the same, or nearly: found among a channel's, and split together."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import numpy as tensors
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.near_duplicates import COPIES, find_copies
from tests.small_channel import make_examples
from thumbtune.channel.listing import Video
from thumbtune.data.looks import View, are_nearly_the_same, look_at
from thumbtune.data.near_duplicates import Look, Picture, Seen, compare, looks_of
from thumbtune.data.thumbnails import Thumbnail, ThumbnailStore, load_cropped
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.store.workspace import Workspace, checksum


@pytest.fixture
def pictures(workspace: Workspace) -> list[Image.Image]:
    rows = make_examples(workspace, 60)
    return [load_cropped(workspace.place(row.image), None) for row in rows]


def keep(workspace: Workspace, pictures: list[Image.Image], folder: Path) -> list[Thumbnail]:
    """Pictures as thumbnails of a workspace, the way a folder's are kept."""
    store = ThumbnailStore(workspace, ThumbnailsParameters(crop_letterbox=False), refresh=False)
    folder.mkdir(exist_ok=True)
    kept = []
    for n, picture in enumerate(pictures):
        file = folder / f"{n}.png"
        picture.save(file)
        kept.append(store.get(Video(id=f"v{n}", title=f"{n}", thumbnails={"file": str(file)})))
    return kept


def groups(looks: list[Look]) -> set[frozenset[str]]:
    """The videos that look alike."""
    of_look: dict[str, set[str]] = {}
    for look in looks:
        of_look.setdefault(look.look, set()).add(look.id)
    return {frozenset(videos) for videos in of_look.values() if len(videos) > 1}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_a_channels_pictures_are_found_and_others_are_not(
    pictures: list[Image.Image], kind: str
) -> None:
    measured = find_copies(pictures, COPIES[kind], seed=random.randrange(10**6))
    assert measured.found >= 0.95
    assert measured.false_pairs < 0.01


def test_pictures_are_compared_by_one_thread_of_blas_each(pictures: list[Image.Image]) -> None:
    """On cores that are busy, more threads take eight times as long."""
    threads: list[int] = []

    def load(picture: Picture) -> list[View]:
        pools = (each for each in threadpool_info() if each["user_api"] == "blas")
        threads.extend(each["num_threads"] for each in pools)
        return look_at(pictures[int(picture[0])])

    with threadpool_limits(2, user_api="blas"):
        compare(Seen.nothing(), {str(n): (str(n), None) for n in range(3)}, load)
        blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    assert set(threads) == {1}
    assert set(blas) == {2}, "as before"


def test_the_same_picture_in_other_colours_is_another_one(pictures: list[Image.Image]) -> None:
    red, green, blue = pictures[0].split()
    recoloured = Image.merge("RGB", (blue, red, green))
    assert not are_nearly_the_same(look_at(pictures[0]), look_at(recoloured))


@pytest.mark.parametrize("size", [(480, 360), (32, 32), (1280, 130), (130, 1280), (64, 640)])
@pytest.mark.parametrize("colour", ["black", "white", "red"])
def test_plain_pictures_have_nothing_by_which_they_could_be_told_to_be_the_same(
    size: tuple[int, int], colour: str
) -> None:
    plain = look_at(Image.new("RGB", size, colour))
    assert not are_nearly_the_same(plain, plain)


def test_pictures_of_noise_are_all_different() -> None:
    rng = np.random.default_rng(0)
    noise = [
        look_at(Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8))) for _ in range(6)
    ]
    alike = [are_nearly_the_same(one, other) for one in noise for other in noise]
    assert alike == np.eye(6, dtype=bool).ravel().tolist()


def test_what_was_compared_is_kept_and_a_new_picture_joins_those_it_looks_like(
    workspace: Workspace, pictures: list[Image.Image], tmp_path: Path
) -> None:
    copy = COPIES["recompressed"](pictures[3], random.Random(1))
    thumbnails = keep(workspace, [*pictures, copy], tmp_path / "pictures")
    first = looks_of(workspace, "tester", thumbnails[:-1])
    kept = workspace.read("looks/tester.safetensors")
    assert looks_of(workspace, "tester", thumbnails[:-1]) == first
    assert workspace.read("looks/tester.safetensors") == kept
    assert frozenset({"v3", "v60"}) in groups(looks_of(workspace, "tester", thumbnails))
    at_once = looks_of(workspace, "another", thumbnails)
    assert groups(at_once) == groups(looks_of(workspace, "tester", thumbnails))


def test_a_picture_that_was_away_is_compared_with_what_came_meanwhile_and_with_that_alone(
    workspace: Workspace, pictures: list[Image.Image], tmp_path: Path
) -> None:
    copy = COPIES["recompressed"](pictures[3], random.Random(1))
    thumbnails = keep(workspace, [*pictures, copy], tmp_path / "pictures")
    away = [
        each.model_copy(update={"image": None}) if n == 3 else each
        for n, each in enumerate(thumbnails)
    ]
    looks_of(workspace, "tester", thumbnails[:-1])
    assert not groups(looks_of(workspace, "tester", away))
    put_off = Seen.read(workspace, "looks/tester.safetensors").put_off.tolist()
    assert [3, 60] in put_off
    assert all(3 in pair for pair in put_off)
    looks = looks_of(workspace, "tester", thumbnails)
    assert groups(looks) == groups(looks_of(workspace, "at once", thumbnails))
    assert frozenset({"v3", "v60"}) in groups(looks)
    assert not len(Seen.read(workspace, "looks/tester.safetensors").put_off)


def test_what_was_kept_without_pairs_to_compare_later_is_looked_at_anew(
    workspace: Workspace, pictures: list[Image.Image], tmp_path: Path
) -> None:
    thumbnails = keep(workspace, [*pictures[:12], pictures[3]], tmp_path / "pictures")
    looks = looks_of(workspace, "tester", thumbnails)
    kept = workspace.read("looks/tester.safetensors")
    earlier = tensors.load(kept.partition(b"\n")[2])
    del earlier["put_off"]
    data = tensors.save(earlier)
    workspace.write("looks/tester.safetensors", f"{checksum(data)}\n".encode() + data)
    assert looks_of(workspace, "tester", thumbnails) == looks
    assert workspace.read("looks/tester.safetensors") == kept


def test_a_picture_is_looked_at_once(
    workspace: Workspace, pictures: list[Image.Image], tmp_path: Path
) -> None:
    thumbnails = keep(workspace, pictures[:12], tmp_path / "pictures")
    looks = looks_of(workspace, "tester", thumbnails)
    for thumbnail in thumbnails:
        assert thumbnail.image
        workspace.remove(thumbnail.image)
    assert looks_of(workspace, "tester", thumbnails) == looks
    with pytest.raises(OSError, match="No such file"):
        looks_of(workspace, "another", thumbnails)


@pytest.mark.parametrize("damage", [b"", b"x" * 3000, None])
def test_damage_of_what_was_kept_costs_a_look_at_the_pictures(
    workspace: Workspace, pictures: list[Image.Image], tmp_path: Path, damage: bytes | None
) -> None:
    thumbnails = keep(workspace, [*pictures[:12], pictures[3]], tmp_path / "pictures")
    looks = looks_of(workspace, "tester", thumbnails)
    assert frozenset({"v3", "v12"}) in groups(looks)
    kept = workspace.read("looks/tester.safetensors")
    flipped = kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:]
    workspace.write("looks/tester.safetensors", flipped if damage is None else damage)
    assert looks_of(workspace, "tester", thumbnails) == looks
    assert workspace.read("looks/tester.safetensors") == kept


def test_videos_without_a_thumbnail_have_no_look(workspace: Workspace) -> None:
    thumbnails = [Thumbnail(video_id=f"v{n}", dropped="no thumbnail") for n in range(3)]
    assert looks_of(workspace, "tester", thumbnails) == []
