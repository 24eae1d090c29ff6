"""The champion as a program asks it: by pictures of any kind, in a grid, and by a search."""

from pathlib import Path

import pytest
from PIL import Image

from tests.small_channel import picture_of
from thumbtune.channel.registry import Version
from thumbtune.data.thumbnails import Example
from thumbtune.store.workspace import Workspace
from thumbtune.use.champion import Champion, open_champion
from thumbtune.use.matching import Matcher, PictureError, TitleError, examples_of

TITLES = ["A red boat", "A cake in the woods", "24 hours on a farm"]


@pytest.fixture
def champion(workspace: Workspace, version: Version) -> Champion:
    return open_champion(workspace.root)


@pytest.fixture
def pictures(workspace: Workspace, version: Version) -> list[Path]:
    examples: list[Example] = examples_of(workspace, version)
    return [picture_of(workspace, example) for example in examples[:3]]


def test_a_picture_may_be_a_path_its_bytes_or_an_image(
    champion: Champion, pictures: list[Path]
) -> None:
    path = pictures[0]
    image: Image.Image = champion.read_picture(path)
    ranked = champion.rank_titles(path, TITLES)
    assert sorted(fit.title for fit in ranked) == sorted(TITLES)
    for same in (str(path), path.read_bytes(), image):
        assert champion.rank_titles(same, TITLES) == ranked


def test_a_grid_has_the_fits_of_each_picture_with_each_title_in_their_order(
    champion: Champion, pictures: list[Path], workspace: Workspace, version: Version
) -> None:
    grid = champion.compare(pictures, TITLES)
    assert [[fit.title for fit in row] for row in grid] == [TITLES] * len(pictures)
    plain = Matcher.of_version(workspace, version)
    for picture, row in zip(pictures, grid, strict=True):
        ranked = plain.rank_titles(plain.read_picture(picture), TITLES)
        expected = {fit.title: fit.cosine for fit in ranked}
        assert {fit.title: fit.cosine for fit in row} == pytest.approx(expected, abs=1e-5)


def test_a_search_finds_a_picture_by_itself_and_shows_as_many_as_asked(
    champion: Champion, pictures: list[Path]
) -> None:
    [first] = champion.search(image=pictures[1], top=1)
    assert Path(first.image).read_bytes() == pictures[1].read_bytes()
    assert len(champion.search("a red boat", top=4)) == 4
    assert champion.version.number == 1


def test_what_is_lacking_is_an_error_with_the_mend(
    champion: Champion, pictures: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(TitleError, match="Give at least one"):
        champion.compare(pictures, [])
    with pytest.raises(TitleError, match="there are none"):
        champion.search("  ")
    with pytest.raises(PictureError, match="Give the path of a picture"):
        champion.compare([pictures[0], tmp_path / "nothing.jpg"], TITLES)
    assert champion.compare([], TITLES) == []
