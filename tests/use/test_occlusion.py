"""What drives a fit, held against pictures that are painted over here."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image

from tests.small_channel import make_examples
from thumbtune.channel.registry import Version
from thumbtune.data.thumbnails import load_image
from thumbtune.store.workspace import Workspace
from thumbtune.use.matching import Matcher
from thumbtune.use.occlusion import COARSE, COLUMNS, ROWS, drivers, lit

pytestmark = pytest.mark.slow


@pytest.fixture
def matcher(workspace: Workspace, version: Version) -> Matcher:
    return Matcher.of_version(workspace, version)


@pytest.fixture
def image(workspace: Workspace) -> Image.Image:
    return load_image(workspace, make_examples(workspace, 4)[3])


def cosine(matcher: Matcher, image: Image.Image, title: str) -> float:
    return float(matcher.embed_images([image])[0] @ matcher.embed_titles([title])[0])


def test_a_word_is_worth_what_the_cosine_falls_without_it(
    matcher: Matcher, image: Image.Image
) -> None:
    found = drivers(matcher, image, "A red  boat, at sea")
    assert [word.text for word in found.words] == ["A", "red", "boat,", "at", "sea"]
    assert found.cosine == pytest.approx(cosine(matcher, image, "A red  boat, at sea"), abs=1e-5)
    without = found.cosine - cosine(matcher, image, "A red at sea")
    assert found.words[2].drop == pytest.approx(without, abs=1e-5)
    assert {word.heat for word in found.words if word.drop <= 0} <= {0.0}
    strongest = found.strongest_word
    assert strongest is None or strongest.heat == pytest.approx(1)


def test_a_part_is_worth_what_the_cosine_falls_where_windows_cover_it(
    matcher: Matcher, image: Image.Image
) -> None:
    title = "A red boat"
    found = drivers(matcher, image, title, patience=600)
    pixels = np.asarray(image.convert("RGB"), float)
    mean = Image.fromarray(pixels.mean(axis=(0, 1)).round().astype(np.uint8)[None, None])
    across = np.linspace(0, image.width, COLUMNS + 1).round().astype(int)
    down = np.linspace(0, image.height, ROWS + 1).round().astype(int)

    def drop(row: int, column: int) -> float:
        covered = image.convert("RGB")
        box = (across[column], down[row], across[column + 2], down[row + 2])
        covered.paste(mean.resize((int(box[2] - box[0]), int(box[3] - box[1]))), box)
        return found.cosine - cosine(matcher, covered, title)

    assert found.parts.shape == (ROWS, COLUMNS)
    assert found.parts[0, 0] == pytest.approx(drop(0, 0), abs=2e-3)  # a corner has one window
    around = [drop(row, column) for row, column in product((1, 2), (3, 4))]
    assert found.parts[2, 4] == pytest.approx(np.mean(around), abs=2e-3)


def test_a_slow_model_looks_at_coarse_parts(matcher: Matcher, image: Image.Image) -> None:
    found = drivers(matcher, image, "A red boat", patience=0)
    columns, rows = COARSE
    assert found.parts.shape == (rows, columns)
    assert found.cosine == pytest.approx(cosine(matcher, image, "A red boat"), abs=1e-5)
    covered = image.convert("RGB")
    box = (0, 0, round(2 * image.width / columns), round(2 * image.height / rows))
    mean = covered.resize((1, 1), Image.Resampling.BOX).resize(box[2:])
    covered.paste(mean, box)
    drop = found.cosine - cosine(matcher, covered, "A red boat")
    assert found.parts[0, 0] == pytest.approx(drop, abs=2e-3)  # a corner has one window


def test_the_picture_is_bright_where_it_drives_the_fit() -> None:
    parts = np.zeros((ROWS, COLUMNS), np.float32)
    parts[2, 1] = 0.3
    parts[0, 7] = -0.3  # without it the title would fit better
    shown = Image.open(io.BytesIO(lit(Image.new("RGB", (800, 500), "white"), parts)))
    assert shown.size[0] == 576  # 360 high
    light = np.asarray(shown.resize((COLUMNS, ROWS), Image.Resampling.BOX).convert("L"), int)
    assert np.unravel_index(light.argmax(), light.shape) == (2, 1)
    assert light[0, 7] == pytest.approx(0.25 * 255, abs=4)


def test_a_title_of_one_word_has_no_word_to_leave_out(matcher: Matcher, image: Image.Image) -> None:
    found = drivers(matcher, image, "Boat")
    assert (found.words, found.strongest_word) == ([], None)
