"""A title's fit with a picture, and what of the channel it is held against."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from tests.data.test_thumbnails import encoded, picture
from tests.small_channel import add_version, picture_of
from thumbtune.arguments import parse_command_line
from thumbtune.channel.registry import Registry, UnknownChannelError, Version, find_registry
from thumbtune.clip.models import folder_of
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace
from thumbtune.use.champion import Champion, open_champion
from thumbtune.use.indexing import LibraryError, index_channel
from thumbtune.use.matching import (
    Matcher,
    NoModelError,
    PictureError,
    TitleError,
    examples_of,
    read_picture,
)


@pytest.fixture
def examples(workspace: Workspace, version: Version) -> list[Example]:
    return examples_of(workspace, version)


def cosines(path: str, images: list[Image.Image], titles: list[str]) -> np.ndarray:
    """Every picture against every title, by the plain model: shape (images, titles)."""
    model = SentenceTransformer(path)
    return np.asarray(
        model.encode(images, normalize_embeddings=True)
        @ model.encode(titles, normalize_embeddings=True).T
    )


@pytest.mark.slow
@pytest.mark.parametrize("untouched", [False, True])
def test_a_title_is_held_against_the_untrained_pairs_and_all_titles_of_the_channel(
    workspace: Workspace, version: Version, examples: list[Example], untouched: bool
) -> None:
    matcher = Matcher.of_version(workspace, version, untouched)
    path = str(folder_of(version.untouched if untouched else version.model, workspace))
    images = [load_image(workspace, example) for example in examples]
    titles = [example.title for example in examples]
    held_out = np.array([example.split == "test" for example in examples])
    pairs = cosines(path, images, titles).diagonal()[held_out]
    own = cosines(path, images, sorted(set(titles)))  # one is there twice
    new = ["A red car in the snow", "My desk"]
    asked = cosines(path, images[:5], new)

    assert matcher.typical == pytest.approx(np.percentile(pairs, (25, 50, 75)), abs=1e-5)
    for row in range(5):
        fits = matcher.score([(images[row], title) for title in new])
        assert [fit.title for fit in fits] == new
        for fit, cosine in zip(fits, asked[row], strict=True):
            assert fit.cosine == pytest.approx(cosine, abs=1e-5)
            assert fit.percentile == pytest.approx(100 * (pairs < cosine).mean())
            assert (fit.rank, fit.of) == (1 + (own[row] >= cosine).sum(), 40)


@pytest.mark.slow
def test_a_title_of_the_channel_does_not_compete_with_itself(
    workspace: Workspace, matcher: Matcher, examples: list[Example]
) -> None:
    image = load_image(workspace, examples[0])
    fits = matcher.rank_titles(image, sorted({example.title for example in examples}))
    assert [fit.rank for fit in fits] == list(range(1, 40))
    assert {fit.of for fit in fits} == {39}


@pytest.mark.slow
def test_a_title_of_the_channel_in_another_spelling_does_not_compete_with_itself(
    workspace: Workspace, matcher: Matcher, examples: list[Example]
) -> None:
    image = load_image(workspace, examples[0])
    title = examples[5].title
    assert {fit.of for fit in matcher.rank_titles(image, [title.upper(), f"\u200b{title} "])} == {
        39
    }


def test_titles_come_the_best_first_with_the_same_scores(
    workspace: Workspace, matcher: Matcher, examples: list[Example]
) -> None:
    image = load_image(workspace, examples[3])
    titles = ["A boat", "Ten castles at night", "Ein Schloß 🏰", "A boat"]
    ranked = matcher.rank_titles(image, titles)
    scored = matcher.score([(image, title) for title in titles])
    best_first = sorted((fit.cosine for fit in scored), reverse=True)
    assert [fit.cosine for fit in ranked] == pytest.approx(best_first, abs=1e-6)
    assert sorted(fit.title for fit in ranked) == sorted(titles)


def test_opening_a_version_runs_no_tower_whose_features_are_stored(
    workspace: Workspace, version: Version
) -> None:
    def stored() -> set[tuple[Path, int]]:
        files = (workspace.root / "features").glob("*/*.safetensors")
        return {(file, file.stat().st_ino) for file in files}  # a written file is a new one

    Matcher.of_version(workspace, version, untouched=True)
    before = stored()
    Matcher.of_version(workspace, version)  # the same frozen towers
    assert before == stored() != set()


@pytest.mark.slow
def test_a_damaged_feature_is_made_again(workspace: Workspace, version: Version) -> None:
    before = Matcher.of_version(workspace, version).typical
    for file in (workspace.root / "features").glob("*/*.safetensors"):
        file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    assert Matcher.of_version(workspace, version).typical == pytest.approx(before)


def test_a_picture_is_read_as_those_of_the_training_were(
    workspace: Workspace, matcher: Matcher, examples: list[Example]
) -> None:
    file = picture_of(workspace, examples[0])
    expected = load_image(workspace, examples[0])
    assert expected.size == (480, 270)  # without its letterbox
    for read in (matcher.read_picture(file), read_picture(str(file), 1.0)):
        assert np.array_equal(np.asarray(read), np.asarray(expected))
    whole = read_picture(file.read_bytes(), crop_letterbox=False)
    assert whole.size == (480, 360)


def test_a_picture_of_any_colour_mode_can_be_scored(matcher: Matcher) -> None:
    plain = picture()
    modes = [plain, plain.convert("RGBA")]
    fits = matcher.score([(image, "a title") for image in modes])
    assert fits[0].cosine == pytest.approx(fits[1].cosine, abs=1e-6)
    assert matcher.embed_images([plain.convert("L"), plain.convert("P")]).shape == (2, 128)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no picture", "picture: not a JPEG, PNG, WebP or GIF picture. Give a JPEG"),
        (b"", "not a JPEG"),
        (encoded(picture())[:2000], "truncated or corrupt"),
        (encoded(picture(2000, 1125)), r"more than 2 megapixels\. Give .* 20 MB and 2 megapixels"),
        (bytes(20_000_001), "larger than 20 MB"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_mend(data: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        read_picture(data, max_megapixels=2)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(PictureError, match=f"picture {path}: cannot be read"):
            read_picture(path)


def test_empty_titles_are_refused(matcher: Matcher) -> None:
    for nothing in (" \n", "\u200b\ufe0f", "\u3164"):
        with pytest.raises(TitleError, match="number 2 of 2 is empty"):
            matcher.rank_titles(picture(), ["good", nothing])
    with pytest.raises(TitleError, match="there is none"):
        matcher.rank_titles(picture(), [])


def test_any_model_matches_but_has_no_channel_to_hold_against() -> None:
    matcher = Matcher.of_model("sample")
    [fit] = matcher.rank_titles(picture(), ["a title"])
    assert -1 <= fit.cosine <= 1
    assert (fit.percentile, fit.rank, fit.of, matcher.typical) == (None, None, None, None)


@pytest.mark.slow
def test_the_only_channel_of_a_workspace_need_not_be_named(
    workspace: Workspace, version: Version
) -> None:
    champion = open_champion(workspace.root)
    assert (champion.name, champion.fingerprint) == (
        "@tester, version 1",
        version.model.fingerprint,
    )
    assert open_champion(workspace.root, untouched=True).name == "sample, untouched"
    add_version(workspace, "@other", seed=1)
    assert open_champion(workspace.root, "@other").name == "@other, version 1"
    with pytest.raises(UnknownChannelError) as caught:
        open_champion(workspace.root)
    assert str(caught.value).startswith("more than one channel has models in ")
    assert "--source youtube --channel @other, --source youtube --channel @tester" in str(
        caught.value
    )


def test_a_channel_without_a_model_is_an_error_and_makes_no_folder(
    workspace: Workspace, version: Version, tmp_path: Path
) -> None:
    with pytest.raises(UnknownChannelError, match=r"no model of @nobody in .*--channel @tester\."):
        open_champion(workspace.root, "@nobody")
    with pytest.raises(UnknownChannelError, match="there are models of: none"):
        open_champion(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_the_bundled_sample_stands_back_for_a_channel_of_ones_own(
    workspace: Workspace, version: Version
) -> None:
    name_of_the_sample(workspace, version)
    assert find_registry(workspace, None, None).channel == "@tester"
    assert find_registry(workspace, "sample", None).source == "sample"
    shutil.rmtree(workspace.root / Registry(workspace, "youtube", "@tester").path)
    assert find_registry(workspace, None, None).source == "sample"


def test_the_bundled_sample_does_not_answer_for_a_channel_that_is_named(
    workspace: Workspace, version: Version
) -> None:
    name_of_the_sample(workspace, version)
    assert find_registry(workspace, "sample", None).source == "sample"
    with pytest.raises(UnknownChannelError, match="no model of @nobody"):
        find_registry(workspace, None, "@nobody")


def name_of_the_sample(workspace: Workspace, version: Version) -> None:
    """The same model as the bundled sample's champion too."""
    sample = version.parameters.model_copy(update={"source": "sample", "channel": None})
    registry = Registry(workspace, "sample", None)
    registry.add(
        version.model, version.untouched, sample, version.examples, [], [], version.metrics
    )
    registry.decide(1, 1, "promoted")


def test_where_no_model_is_the_error_tells_how_to_train_one(tmp_path: Path) -> None:
    place = tmp_path / "my workspace"
    with pytest.raises(UnknownChannelError) as caught:
        open_champion(place, "@nobody")
    told = str(caught.value)
    assert told.startswith(f"no model of @nobody in {place}. Train one: `")
    command = shlex.split(told.split("`")[1])
    assert (Path(command[0]).name, command[1]) == ("thumbtune", "train")
    assert parse_command_line(TrainParameters, command[2:]) == TrainParameters(
        channel="@nobody", workspace=str(place)
    )


@pytest.mark.parametrize(
    ("place", "mend"),
    [("workspace", "add `--workspace workspace`"), ("~/.thumbtune", "leave out `--workspace`")],
)
def test_where_no_model_is_the_error_names_the_workspace_that_has_it(
    place: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    add_version(Workspace.open(place))
    with pytest.raises(UnknownChannelError, match=mend):
        open_champion(tmp_path / "elsewhere")
    with pytest.raises(UnknownChannelError, match="Train one"):
        open_champion(tmp_path / "elsewhere", "@nobody")


def test_a_champion_that_cannot_be_used_is_an_error_with_the_mend(
    workspace: Workspace, version: Version
) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    registry.decide(1, None, "kept")
    with pytest.raises(NoModelError, match=r"it has: 1\. `thumbtune rollback NUMBER`"):
        open_champion(workspace.root)
    registry.decide(1, 1, "promoted")
    (workspace.root / version.examples.path).write_text("{}")
    with pytest.raises(NoModelError, match="gone or damaged"):
        open_champion(workspace.root)
    workspace.place(version.model.path).rename(workspace.root / "elsewhere")
    with pytest.raises(NoModelError, match=r"weights .* are no longer there"):
        open_champion(workspace.root)


def test_the_library_has_one_door() -> None:
    import thumbtune

    assert thumbtune.Champion is Champion
    assert thumbtune.open_champion is open_champion
    with pytest.raises(ImportError):
        from thumbtune import close_champion  # noqa: F401


def test_a_picture_that_must_be_encoded_and_is_gone_is_left_out_and_told(
    workspace: Workspace, version: Version, examples: list[Example]
) -> None:
    gone, damaged = (next(row for row in examples if row.split == s) for s in ("test", "valid"))
    picture_of(workspace, gone).unlink()
    picture_of(workspace, damaged).write_bytes(b"GIF89a")
    matcher = Matcher.of_version(workspace, version)
    assert matcher.left_out == {"picture gone": 2}  # what is damaged is removed
    assert matcher.own
    held_out = [row for row in examples if row.split == "test"]
    assert len(matcher.own.cosines) == len(held_out) - 1
    indexed = index_channel(workspace, version, matcher)
    assert (indexed.pictures, indexed.dropped) == (38, matcher.left_out)


def test_without_any_of_the_channels_pictures_one_sentence_tells_the_mend(
    workspace: Workspace, version: Version, examples: list[Example]
) -> None:
    for row in examples:
        picture_of(workspace, row).unlink(missing_ok=True)
    with pytest.raises(NoModelError, match=r"thumbnails of version 1 .* Train again: what can"):
        Matcher.of_version(workspace, version)
    any_model = Matcher.of_model("sample")
    with pytest.raises(LibraryError, match=r"The 40 thumbnails of the channel .* Train again"):
        index_channel(workspace, version, any_model)


@pytest.mark.slow
def test_features_that_are_stored_need_no_picture(
    workspace: Workspace, version: Version, examples: list[Example]
) -> None:
    before = Matcher.of_version(workspace, version)
    for row in examples:
        picture_of(workspace, row).unlink(missing_ok=True)
    after = Matcher.of_version(workspace, version)
    assert (after.typical, after.left_out) == (before.typical, {})
