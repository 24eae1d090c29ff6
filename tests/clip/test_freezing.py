"""What is left to train."""

import textwrap

import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from thumbtune.clip.freezing import NothingMatchesError, freeze

VIT_L_14 = CLIPConfig(
    text_config={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
    },
    vision_config={
        "hidden_size": 1024,
        "image_size": 224,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
    projection_dim=768,
)


@pytest.fixture
def vit_l_14() -> CLIPModel:
    """CLIP of ViT-L/14's shape without weights."""
    with torch.device("meta"):
        return CLIPModel(VIT_L_14)


def test_the_projections_of_vit_l_14_are_the_articles_1_376_256_of_427_616_513(
    vit_l_14: CLIPModel,
) -> None:
    counted = freeze(vit_l_14, ["projection"])
    assert (counted.total, counted.trainable) == (427_616_513, 1_376_256)
    assert counted.names == ["visual_projection.weight", "text_projection.weight"]
    assert f"{counted.share:.2%}" == "0.32%"


def test_several_fragments_add_up(vit_l_14: CLIPModel) -> None:
    names = freeze(vit_l_14, ["projection", "vision_model.encoder.layers.23."]).names
    assert len(names) == 2 + 16
    assert sum("layers.23." in name for name in names) == 16


def test_freezing_again_forgets_what_was_trainable_before(vit_l_14: CLIPModel) -> None:
    freeze(vit_l_14, ["layers.23"])
    assert freeze(vit_l_14, ["text_projection"]).names == ["text_projection.weight"]


def test_a_fragment_that_matches_nothing_is_an_error_that_lists_the_real_modules() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model.logit_scale = nn.Parameter(torch.ones(()))
    with pytest.raises(NothingMatchesError, match=r"'projektion'.*: logit_scale, 0, 2\.$"):
        freeze(model, ["0", "projektion"])


@pytest.mark.parametrize(
    ("fragment", "meant"),
    [
        ("projektion", "'projection'"),
        ("Visual_Projection", "'visual_projection'"),
        ("vision_model.encoder.layer.23.", "'vision_model.encoder.layers.23'"),
        ("selfattn", "'self_attn'"),
    ],
)
def test_a_typo_is_told_what_may_be_meant_and_the_kinds_of_layers_of_which_there_are_hundreds(
    vit_l_14: CLIPModel, fragment: str, meant: str
) -> None:
    with pytest.raises(NothingMatchesError) as raised:
        freeze(nn.Sequential(vit_l_14), [fragment])
    said = str(raised.value)
    assert meant in said.partition("Did you mean ")[2].partition("?")[0]
    assert "vision_model.encoder.layers.*.{self_attn.k_proj, " in said
    assert "(24)" in said
    assert "layers.11" not in said
    assert len(textwrap.wrap(said, 80)) <= 13


@pytest.mark.slow
def test_nothing_is_suggested_where_nothing_is_near(vit_l_14: CLIPModel) -> None:
    with pytest.raises(NothingMatchesError, match=r"contains 'xyzzy'\. The layers"):
        freeze(vit_l_14, ["xyzzy"])
