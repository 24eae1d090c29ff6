"""CLIP cut in two: frozen towers whose outputs never change, and the head that trains.

Each tower is a chain: embeddings → encoder layers → norm of the pooled token → projection. All that
stands before the first trainable layer gives the same output in every epoch, so it is run once.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPModel, CLIPTextConfig, PretrainedConfig
from transformers.masking_utils import create_causal_mask

from thumbtune.store.workspace import checksum

Kind = Literal["image", "text"]
KINDS: tuple[Kind, Kind] = ("image", "text")
Precision = Literal["float32", "bfloat16"]


class Plan(BaseModel):
    """Which way a model is trained: on stored features, or whole."""

    model_config = ConfigDict(frozen=True)

    depths: dict[Kind, int | None] | None
    """Tower → number of its encoder layers that are run once, None if it trains from its first
    layer: then its inputs are stored as the processor made them. No dictionary: train whole."""
    why: str
    """For the report."""


def plan_of(model: SentenceTransformer) -> Plan:
    """Look where the first trainable parameter of each tower is (`requires_grad`)."""
    clip: Any = getattr(model[0], "model", None)
    whole = "the whole model in each step: "
    if not isinstance(clip, CLIPModel) or len(model) > 1:
        return Plan(depths=None, why=f"{whole}its towers are not CLIP's")
    if any(tower.config.attention_dropout for tower in (clip.vision_model, clip.text_model)):
        return Plan(depths=None, why=f"{whole}its layers have dropout")
    depths = {kind: _depth(_tower(clip, kind)) for kind in KINDS}
    if all(depth is None for depth in depths.values()):
        return Plan(depths=None, why=f"{whole}both towers train from their first layer")
    runs = {kind: _runs(kind, depths[kind], _tower(clip, kind)) for kind in KINDS}
    return Plan(depths=depths, why=f"stored features: {runs['image']}; {runs['text']}")


def last_norms(model: SentenceTransformer) -> list[nn.Module]:
    """The norms before CLIP's projections, into whose biases a closed form is folded."""
    clip: Any = getattr(model[0], "model", None)
    if not isinstance(clip, CLIPModel):
        return []
    return [clip.vision_model.post_layernorm, clip.text_model.final_layer_norm]


def pools_once(model: SentenceTransformer, kind: Kind) -> bool:
    """Whether a tower is frozen as a whole, so that its features are single tokens, and small."""
    depths = plan_of(model).depths
    if depths is None:
        return False
    return depths[kind] == len(_tower(cast(Any, model[0]).model, kind).encoder.layers)


def _depth(tower: Any) -> int | None:
    if any(_trains(module) for module in _embeddings(tower)):
        return None
    trains = [_trains(layer) for layer in tower.encoder.layers]
    return trains.index(True) if True in trains else len(trains)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _runs(kind: Kind, depth: int | None, tower: Any) -> str:
    layers = len(tower.encoder.layers)
    if depth is None:
        return f"the {kind} tower trains whole"
    if depth == layers:
        return f"the frozen {kind} tower ran once"
    return f"{depth} of {layers} {kind} layers ran once"


def _tower(clip: CLIPModel, kind: Kind) -> Any:
    return clip.vision_model if kind == "image" else clip.text_model


def _embeddings(tower: Any) -> list[nn.Module]:
    """What comes before the encoder layers; the vision tower has a norm there (its real name)."""
    return [getattr(tower, name) for name in ("embeddings", "pre_layrnorm") if hasattr(tower, name)]


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's numbers as they lie in memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))


ONLY_TOLD = {"_name_or_path", "architectures", "dtype", "transformers_version"}
"""Fields of a configuration that say where a model comes from, and change nothing it computes."""


def _computed(config: PretrainedConfig) -> dict[str, Any]:
    """What a configuration decides beside the weights: activation, heads, epsilons, end of text."""
    fields: dict[str, Any] = config.to_dict()
    return {name: value for name, value in fields.items() if name not in ONLY_TOLD}


class Trunk:
    """The frozen part of one tower.

    Args:
        depth: as in a `Plan`.
        precision: of its matrix products; what comes out is float32.
    """

    def __init__(
        self, model: SentenceTransformer, kind: Kind, depth: int | None, precision: Precision
    ) -> None:
        self.module: Any = model[0]
        self.kind = kind
        self.tower = _tower(cast(CLIPModel, self.module.model), kind)
        self.embeddings = [] if depth is None else _embeddings(self.tower)
        self.layers = list(self.tower.encoder.layers)[: depth or 0]
        self.keeps_sequence = depth != len(self.tower.encoder.layers)
        self.precision = precision if self.embeddings else "float32"

    @property
    def fingerprint(self) -> str:
        """Of the frozen weights and what is computed with them, the preprocessing, the depth and
        the precision."""
        parts: list[str | memoryview] = [self.kind, self.precision, self._preprocessing()]
        parts.append(json.dumps(_computed(self.tower.config), sort_keys=True))
        for module in [*self.embeddings, *self.layers]:
            for name, tensor in module.state_dict().items():
                parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", bytes_of(tensor)]
        return checksum(f"{len(self.layers)} {self.keeps_sequence}", *parts)

    def _preprocessing(self) -> str:
        processor, tokenizer = self.module.processor, self.module.tokenizer
        if self.kind == "image":
            return processor.image_processor.to_json_string()
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        del rules["padding"], rules["truncation"]  # of its last call
        return f"{json.dumps(rules)} {self.module.max_seq_length}"

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Pictures or titles as the model's own processor makes them ready."""
        return self.module.preprocess(list(inputs))

    @torch.no_grad()
    def run(self, ready: dict[str, Any]) -> list[Tensor]:
        """What enters the first trainable layer, one matrix (tokens, width) an input.

        A title's last row is the token that the tower pools, the end of text. Where no layer
        trains, only the pooled token is left: shape (1, width). Where all do, it is what the
        processor made: pixels (colours x height, width), token numbers (tokens, 1).
        """
        device = self.module.model.device
        enabled = self.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            if self.kind == "image":
                return self._run_images(ready["pixel_values"].to(device))
            return self._run_titles(ready["input_ids"].to(device))

    def _run_images(self, pixels: Tensor) -> list[Tensor]:
        if not self.embeddings:
            return list(pixels.flatten(1, 2))
        hidden = run_patches(self.embeddings, self.layers, pixels)
        return list(hidden if self.keeps_sequence else hidden[:, :1])

    def _run_titles(self, ids: Tensor) -> list[Tensor]:
        ends = end_of_text(ids, self.tower.eos_token_id)
        first = torch.zeros_like(ends) if self.keeps_sequence else ends
        hidden = ids[:, :, None]
        if self.embeddings:
            hidden = run_causal(self.tower.config, self.embeddings, self.layers, hidden)
        return [rows[a : b + 1] for rows, a, b in zip(hidden, first, ends, strict=True)]


def end_of_text(ids: Tensor, eos_token_id: int) -> Tensor:
    """Place of the token that CLIP's text tower pools, shape (titles,).

    As in transformers' CLIPTextModel: models of old have a wrong eos_token_id, 2, and the highest
    token number marks the end.
    """
    return (ids if eos_token_id == 2 else (ids == eos_token_id).int()).argmax(dim=-1)


def run_patches(
    embeddings: Iterable[nn.Module], layers: Iterable[nn.Module], hidden: Tensor
) -> Tensor:
    """Embeddings, if any, and encoder layers of the vision tower."""
    for module in embeddings:
        hidden = module(hidden)
    for layer in layers:
        hidden = layer(hidden, None)
    return hidden.float()


def run_causal(
    config: CLIPTextConfig,
    embeddings: Iterable[nn.Module],
    layers: Iterable[nn.Module],
    hidden: Tensor,
) -> Tensor:
    """The same of the text tower; titles are padded on the right, where nothing looks.

    Args:
        hidden: (titles, tokens, width), or token numbers (titles, tokens, 1) for the embeddings.
    """
    for module in embeddings:
        hidden = module(input_ids=hidden[:, :, 0])
    mask = create_causal_mask(
        config=config, inputs_embeds=hidden, attention_mask=None, past_key_values=None
    )
    for layer in layers:
        hidden = layer(hidden, mask, is_causal=True)
    return hidden.float()


class Head(InputModule):
    """What is left of CLIP after the frozen layers: a module that reads stored features.

    It shares its parameters with the CLIP that it is cut from, so what it learns is there as well.
    Its inputs are keys of features.
    """

    def __init__(
        self,
        clip: CLIPModel,
        depths: dict[Kind, int | None],
        features: dict[Kind, dict[str, Tensor]],
    ) -> None:
        super().__init__()
        self.visual_projection = clip.visual_projection
        self.text_projection = clip.text_projection
        self.post_layernorm = clip.vision_model.post_layernorm
        self.final_layer_norm = clip.text_model.final_layer_norm
        self.image_embeddings, self.image_layers = _trainable(clip.vision_model, depths["image"])
        self.text_embeddings, self.text_layers = _trainable(clip.text_model, depths["text"])
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

    @property
    def ends(self) -> dict[Kind, tuple[nn.LayerNorm, nn.Linear]]:
        """What pooled tokens pass at last: a norm, and a projection into the shared space."""
        return {
            "image": (self.post_layernorm, self.visual_projection),
            "text": (self.final_layer_norm, self.text_projection),
        }

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, shape (inputs, dimensions)."""
        projection = self.ends[features["modality"]][1]
        return {**features, "sentence_embedding": projection(self.pooled(features))}

    def pooled(self, features: dict[str, Any]) -> Tensor:
        """What enters the projection, shape (inputs, width)."""
        device = self.visual_projection.weight.device
        rows = [self.matrices[place] for place in features["input_ids"][:, 0].tolist()]
        norm, _ = self.ends[features["modality"]]
        if features["modality"] == "image":
            hidden = torch.stack(rows).to(device)
            if len(self.image_embeddings):
                hidden = hidden.unflatten(1, (3, -1))
            hidden = run_patches(self.image_embeddings, self.image_layers, hidden)
            return norm(hidden[:, 0])
        last = torch.tensor([len(row) - 1 for row in rows], device=device)
        hidden = pad_sequence(rows, batch_first=True).to(device)
        if len(self.text_layers):
            layers = self.text_embeddings, self.text_layers
            hidden = run_causal(self.text_config, *layers, hidden)
        return norm(hidden[torch.arange(len(rows), device=device), last])

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Only the whole CLIP is saved."""
        raise NotImplementedError("Save the model that the head was cut from.")


def _trainable(tower: Any, depth: int | None) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The embeddings and the layers that the trunk leaves to the head."""
    embeddings = _embeddings(tower) if depth is None else []
    return nn.ModuleList(embeddings), nn.ModuleList(tower.encoder.layers[depth or 0 :])
