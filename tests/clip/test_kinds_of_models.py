"""A dual encoder of any kind: what of it trains, on stored features, and that it can be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router

from tests.small_channel import make_examples, quick_run
from tests.tiny_clip import save_tiny_clip, save_tiny_siglip, save_tiny_text_model
from tests.tiny_encoders import ADDED_MAPS, KINDS_OF_MODELS, OWN_MAPS
from thumbtune.channel.registry import Registry
from thumbtune.clip.ends import PROBES, TwoSpacesError, add_maps, embedded
from thumbtune.clip.features import head_of
from thumbtune.clip.models import find_model, load_clip
from thumbtune.clip.towers import plan_of
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.flows.train_flow import train
from thumbtune.learning.candidates import Candidate, begin
from thumbtune.learning.closed_form import ClosedForm, Maps, Whitened, maps_of
from thumbtune.learning.pooled import Pooled, end_of
from thumbtune.learning.training import fine_tune
from thumbtune.parameters import AUTO, EvaluationParameters, TrainingParameters
from thumbtune.store.shared_files import Listing
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import channel_place, index_channel, open_index, search_words
from thumbtune.use.matching import Matcher

KINDS = sorted(KINDS_OF_MODELS)


def loaded(kind: str, folder: Path) -> SentenceTransformer:
    return load_clip(find_model(str(KINDS_OF_MODELS[kind](folder / "model"))))


def trained(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def begun(
    kind: str, folder: Path, workspace: Workspace, rows: list[Example]
) -> tuple[SentenceTransformer, Pooled, Maps]:
    """A model to which a closed form was done, saved at `saved`; what entered its maps before, and
    the maps as the algebra has them."""
    model = loaded(kind, folder)
    set_trainable(model, AUTO)
    head, _ = head_of(workspace, model, rows)
    pooled, end = Pooled.of(head, rows), end_of(head)
    chosen = ClosedForm(ridge=0.3, prior=0.2)
    maps = Whitened(pooled.outputs, maps_of(end).maps, end.lowered).solve(chosen)
    begin(head, Candidate(name="it", start=chosen), rows)
    model.save_pretrained(str(folder / "saved"), create_model_card=False)
    return model, pooled, maps


@pytest.mark.parametrize("kind", sorted(OWN_MAPS))
def test_the_last_linear_map_of_each_tower_trains_where_there_is_one(
    kind: str, tmp_path: Path
) -> None:
    model = loaded(kind, tmp_path)
    trainable = set_trainable(model, AUTO)
    assert trainable.names == [
        "0.model.visual_projection.weight",
        "0.model.text_projection.weight",
    ]
    assert trainable.why.startswith(("CLIP's two projections", "the last linear map of each"))


@pytest.mark.parametrize("kind", sorted(ADDED_MAPS))
def test_maps_that_change_nothing_are_added_where_there_is_none(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, tmp_path)
    before = [embedded(model, modality) for modality in ("image", "text")]
    trainable = set_trainable(model, AUTO)
    assert [name.split(".", 1)[1] for name in trainable.names] == [
        "sub_modules.image.0.linear.weight",
        "sub_modules.text.0.linear.weight",
    ]
    assert "added behind the model" in trainable.why
    for was, modality in zip(before, ("image", "text"), strict=True):
        assert torch.allclose(embedded(model, modality), was, atol=1e-6)
    assert set_trainable(model, AUTO) == trainable, "they are added once"


@pytest.mark.compatibility
@pytest.mark.parametrize("kind", KINDS)
def test_features_give_the_weights_of_the_full_forward(
    kind: str, tmp_path: Path, workspace: Workspace
) -> None:
    rows = make_examples(workspace, 24)
    rows = [
        row.model_copy(update={"title_neg": rows[(n + 5) % 24].title}) for n, row in enumerate(rows)
    ]
    settings = TrainingParameters(epochs=2, batch_size=8, learning_rate=0.01)
    learned = []
    for on_features in (False, True):
        model = loaded(kind, tmp_path / str(on_features))
        set_trainable(model, AUTO)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        reader = model
        if on_features:
            reader, encoded = head_of(workspace, model, rows)
            assert encoded.plan.stores_features
        fine_tune(reader, workspace, rows, [], settings, EvaluationParameters(), 42)
        for name, weight in model.named_parameters():
            assert torch.equal(weight, before[name]) != weight.requires_grad, name
        learned.append(trained(model))
    for name, weight in learned[0].items():
        assert torch.norm(learned[1][name] - weight) <= 1e-4 * torch.norm(weight), name


@pytest.mark.compatibility
@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_model_has_the_cosines_of_the_closed_form(
    kind: str, tmp_path: Path, workspace: Workspace
) -> None:
    rows = make_examples(workspace, 40)
    _, pooled, maps = begun(kind, tmp_path, workspace, rows)
    plain = SentenceTransformer(str(tmp_path / "saved"))
    titles = [row.title for row in rows[:12]]
    pictures = plain.encode([load_image(workspace, row) for row in rows[:12]])
    got = plain.similarity(pictures, plain.encode(titles)).numpy()
    images, texts = (maps.embed(each, pooled.outputs[each][:12]) for each in ("image", "text"))
    lengths = np.outer(np.linalg.norm(images, axis=1), np.linalg.norm(texts, axis=1))
    assert np.abs(got - images @ texts.T / lengths).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_goes_on_from_where_it_is(
    kind: str, tmp_path: Path, workspace: Workspace
) -> None:
    """A version is given as the model of another training: its maps are what is begun with."""
    rows = make_examples(workspace, 40)
    model, _, _ = begun(kind, tmp_path, workspace, rows)
    again = load_clip(find_model(str(tmp_path / "saved")))
    set_trainable(again, AUTO)
    head, encoded = head_of(workspace, again, rows)
    assert sum(encoded.encoded.values()) == 0, "what is frozen is the same"
    pooled, maps = Pooled.of(head, rows), maps_of(end_of(head))
    titles = [row.title for row in rows]
    for modality, inputs in (
        ("image", [load_image(workspace, row) for row in rows]),
        ("text", titles),
    ):
        vectors = maps.embed(modality, pooled.outputs[modality])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        expected = model.encode(inputs, normalize_embeddings=True)
        assert np.abs(vectors - expected).max() < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_makes_a_small_version_that_matches_and_is_searched(
    kind: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = quick_run(tmp_path)
    options["model"] = str(KINDS_OF_MODELS[kind](tmp_path / "model"))
    run = train(**options)

    workspace = Workspace.open(options["workspace"])
    [version] = Registry(workspace, "folder", options["channel"]).versions()
    assert len(list((workspace.root / "features").iterdir())) == 2, "one encoding a modality"
    matcher = Matcher.of_version(workspace, version)
    plain = SentenceTransformer(str(Path(run.model)))
    title = "Title number 3"
    vectors = plain.encode([title], normalize_embeddings=True)
    assert np.allclose(matcher.embed_titles([title]), vectors, atol=1e-5)
    if kind != "two models":  # which is kept whole
        listing = Listing.of(Path(run.model))
        assert listing
        own = [name for name, part in listing.parts.items() if part.shared is None]
        assert len(own) == 2, "its own weights, and the index; the frozen ones are shared"
    index_channel(workspace, version, matcher)
    index = open_index(workspace, channel_place(matcher.fingerprint, version))
    assert len(search_words(index, matcher, title, 3)) == 3


@pytest.mark.parametrize("fragments", [["visual_projection", "text_projection"], ["text_proj"]])
def test_fragments_that_name_the_last_maps_need_stored_features_alone(
    fragments: list[str], tmp_path: Path
) -> None:
    for kind in ("ChineseCLIP", "AltCLIP", "vision-text dual encoder", "CLIP and a layer"):
        model = loaded(kind, tmp_path / kind)
        set_trainable(model, fragments)
        assert plan_of(model).stores_features


def test_a_fragment_that_reaches_deeper_trains_such_a_model_whole(tmp_path: Path) -> None:
    model = loaded("ChineseCLIP", tmp_path)
    set_trainable(model, ["text_model.encoder.layer.1"])
    plan = plan_of(model)
    assert not plan.stores_features
    assert "more than the last maps trains" in plan.why


def test_a_siglips_own_head_can_be_named_and_trains_it_whole(tmp_path: Path) -> None:
    model = load_clip(find_model(str(save_tiny_siglip(tmp_path / "model"))))
    assert set_trainable(model, ["text_model.head"]).names == [
        "0.model.text_model.head.weight",
        "0.model.text_model.head.bias",
    ]
    assert "do not end in linear maps of their own" in plan_of(model).why


def test_maps_stand_before_a_scaling_to_length_1(tmp_path: Path) -> None:
    model = loaded("CLIP and a layer", tmp_path)
    add_maps(model)
    assert [type(module).__name__ for module in model] == [
        "Transformer",
        "Dense",
        "Router",
        "Normalize",
    ]


def test_two_spaces_of_different_size_are_refused(tmp_path: Path) -> None:
    clip = SentenceTransformer(str(save_tiny_clip(tmp_path / "clip")), device="cpu")
    bert = SentenceTransformer(str(save_tiny_text_model(tmp_path / "bert")), device="cpu")
    wider = Dense(8, 12)
    model = SentenceTransformer(modules=[Router({"image": [*clip], "text": [*bert, wider]})])
    with pytest.raises(TwoSpacesError, match="a picture as 8 numbers and a title as 12"):
        set_trainable(model, AUTO)


def test_the_probes_are_two_pictures_and_two_titles_that_differ() -> None:
    one, other = PROBES["image"]
    assert np.asarray(one).std() > 0
    assert not np.array_equal(np.asarray(one), np.asarray(other))
    assert len(set(PROBES["text"])) == 2
