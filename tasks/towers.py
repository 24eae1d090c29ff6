"""CLIP cut in two: frozen towers whose outputs never change, and the head that trains.

Each tower is a chain: embeddings → encoder layers → norm of the pooled token → projection. All that
stands before the first trainable layer gives the same output in every epoch, so it is run once.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPModel, CLIPTextConfig
from transformers.masking_utils import create_causal_mask

from tasks.workspace import fingerprint

Kind = Literal["image", "text"]
KINDS: tuple[Kind, Kind] = ("image", "text")


class Plan(BaseModel):
    """Which way a model is trained: on stored features, or whole."""

    model_config = ConfigDict(frozen=True)

    depths: dict[Kind, int] | None
    """Tower → number of its encoder layers that are run once; None to train whole."""
    why: str
    """For the report."""


def plan_of(model: SentenceTransformer) -> Plan:
    """Look where the first trainable parameter of each tower is (`requires_grad`)."""
    clip: Any = getattr(model[0], "model", None)
    if not isinstance(clip, CLIPModel) or len(model) > 1:
        return Plan(depths=None, why="the whole model in each step: its towers are not CLIP's")
    if any(tower.config.attention_dropout for tower in (clip.vision_model, clip.text_model)):
        return Plan(depths=None, why="the whole model in each step: its frozen layers have dropout")
    depths: dict[Kind, int] = {}
    for kind in KINDS:
        tower = _tower(clip, kind)
        if any(_trains(module) for module in _embeddings(tower)):
            return Plan(
                depths=None,
                why=f"the whole model in each step: the {kind} tower trains from its first layer",
            )
        layers = list(tower.encoder.layers)
        trains = [number for number, layer in enumerate(layers) if _trains(layer)]
        depths[kind] = trains[0] if trains else len(layers)
    whole = all(depths[kind] == len(_tower(clip, kind).encoder.layers) for kind in KINDS)
    what = "the frozen towers' outputs" if whole else "hidden states of the frozen layers"
    runs = ", ".join(
        f"{depth} of {len(_tower(clip, kind).encoder.layers)} {kind} layers"
        for kind, depth in depths.items()
    )
    return Plan(depths=depths, why=f"{what}, run once and stored ({runs})")


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _tower(clip: CLIPModel, kind: Kind) -> Any:
    return clip.vision_model if kind == "image" else clip.text_model


def _embeddings(tower: Any) -> list[nn.Module]:
    """What comes before the encoder layers; the vision tower has a norm there (its real name)."""
    return [getattr(tower, name) for name in ("embeddings", "pre_layrnorm") if hasattr(tower, name)]


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's numbers as they lie in memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


class Trunk:
    """The frozen part of one tower."""

    def __init__(self, model: SentenceTransformer, kind: Kind, depth: int) -> None:
        self.module: Any = model[0]
        self.kind = kind
        self.tower = _tower(cast(CLIPModel, self.module.model), kind)
        self.layers = list(self.tower.encoder.layers)[:depth]
        self.keeps_sequence = depth < len(self.tower.encoder.layers)

    @property
    def fingerprint(self) -> str:
        """Of the frozen weights, the preprocessing and the depth."""
        parts: list[str | memoryview] = [self.kind, str(len(self.layers)), self._preprocessing()]
        for module in [*_embeddings(self.tower), *self.layers]:
            for name, tensor in module.state_dict().items():
                parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", bytes_of(tensor)]
        return fingerprint(*parts)[:32]

    def _preprocessing(self) -> str:
        processor, tokenizer = self.module.processor, self.module.tokenizer
        if self.kind == "image":
            return processor.image_processor.to_json_string()
        return f"{tokenizer.backend_tokenizer.to_str()} {self.module.max_seq_length}"

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Pictures or titles as the model's own processor makes them ready."""
        return self.module.preprocess(list(inputs))

    @torch.no_grad()
    def run(self, ready: dict[str, Any]) -> list[Tensor]:
        """What enters the first trainable layer, one matrix (tokens, width) an input.

        A title's last row is the token that the tower pools, the end of text. Where no layer
        trains, only the pooled token is left: shape (1, width).
        """
        device = self.module.model.device
        if self.kind == "image":
            hidden = self.tower.embeddings(ready["pixel_values"].to(device))
            hidden = self.tower.pre_layrnorm(hidden)
            for layer in self.layers:
                hidden = layer(hidden, None)
            return list(hidden if self.keeps_sequence else hidden[:, :1])
        ids = ready["input_ids"].to(device)
        hidden = run_causal(self.tower.config, self.layers, self.tower.embeddings(input_ids=ids))
        ends = end_of_text(ids, self.tower.eos_token_id)
        first = torch.zeros_like(ends) if self.keeps_sequence else ends
        return [rows[a : b + 1] for rows, a, b in zip(hidden, first, ends, strict=True)]


def end_of_text(ids: Tensor, eos_token_id: int) -> Tensor:
    """Place of the token that CLIP's text tower pools, shape (titles,).

    As in transformers' CLIPTextModel: models of old have a wrong eos_token_id, 2, and the highest
    token number marks the end.
    """
    return (ids if eos_token_id == 2 else (ids == eos_token_id).int()).argmax(dim=-1)


def run_causal(config: CLIPTextConfig, layers: Iterable[nn.Module], hidden: Tensor) -> Tensor:
    """Encoder layers of the text tower; titles are padded on the right, where nothing looks."""
    mask = create_causal_mask(
        config=config, inputs_embeds=hidden, attention_mask=None, past_key_values=None
    )
    for layer in layers:
        hidden = layer(hidden, mask, is_causal=True)
    return hidden


class Head(InputModule):
    """What is left of CLIP after the frozen layers: a module that reads stored features.

    It shares its parameters with the CLIP that it is cut from, so what it learns is there as well.
    Its inputs are keys of features.
    """

    def __init__(
        self,
        clip: CLIPModel,
        depths: dict[Kind, int],
        features: dict[Kind, dict[str, Tensor]],
    ) -> None:
        super().__init__()
        self.visual_projection = clip.visual_projection
        self.text_projection = clip.text_projection
        self.post_layernorm = clip.vision_model.post_layernorm
        self.final_layer_norm = clip.text_model.final_layer_norm
        self.image_layers = nn.ModuleList(clip.vision_model.encoder.layers[depths["image"] :])
        self.text_layers = nn.ModuleList(clip.text_model.encoder.layers[depths["text"] :])
        self.text_config = clip.text_model.config
        self.matrices = [matrix for kind in KINDS for matrix in features[kind].values()]
        places = (key for kind in KINDS for key in features[kind])
        self.place = {key: number for number, key in enumerate(places)}
        self.images = len(features["image"])

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> Any:
        """The numbers of the features, under the name by which the Trainer knows a column."""
        places = torch.tensor([[self.place[key]] for key in inputs])
        return {
            "input_ids": places,
            "modality": "image" if places[0, 0] < self.images else "text",
        }

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, shape (inputs, dimensions)."""
        device = self.visual_projection.weight.device
        rows = [self.matrices[place] for place in features["input_ids"][:, 0].tolist()]
        if features["modality"] == "image":
            hidden = torch.stack(rows).to(device)
            for layer in self.image_layers:
                hidden = layer(hidden, None)
            embedding = self.visual_projection(self.post_layernorm(hidden[:, 0]))
        else:
            last = torch.tensor([len(row) - 1 for row in rows], device=device)
            hidden = pad_sequence(rows, batch_first=True).to(device)
            if len(self.text_layers):
                hidden = run_causal(self.text_config, self.text_layers, hidden)
            pooled = hidden[torch.arange(len(rows), device=device), last]
            embedding = self.text_projection(self.final_layer_norm(pooled))
        return {**features, "sentence_embedding": embedding}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Only the whole CLIP is saved."""
        raise NotImplementedError("Save the model that the head was cut from.")
