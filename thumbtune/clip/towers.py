"""A model cut in two: frozen towers whose outputs never change, and the head that trains.

CLIP's towers are chains: embeddings → encoder layers → norm of the pooled token → projection. All
that stands before the first trainable layer gives the same output in every epoch, so it is run
once. Any other model is run once as a whole, up to its last maps.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextConfig, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask

from thumbtune.clip.ends import (
    KINDS,
    End,
    Ends,
    Kind,
    added_maps,
    behind,
    ends_of,
    is_clips,
)
from thumbtune.store.workspace import checksum

Precision = Literal["float32", "bfloat16", "int8"]
"""Of a tower's matrix products. Titles take a small part of the time: in int8 they are run in
float32."""


Picture = Callable[[int | None], Image.Image]
"""Decodes a picture, at a size at which its shorter side has so many pixels at least: the whole
picture, or what a JPEG decoder gives in half the time."""


class Plan(BaseModel):
    """Which way a model is trained: on stored features, or whole."""

    model_config = ConfigDict(frozen=True)

    way: Literal["layers", "maps", "whole"]
    """On features of CLIP's layers, on those that enter the last maps, or on none."""
    depths: dict[Kind, int | None] | None = None
    """Of `layers`: tower → number of its encoder layers that are run once, None if it trains from
    its first layer: then its inputs are stored as the processor made them."""
    why: str
    """For the report."""

    @property
    def stores_features(self) -> bool:
        """Whether something is run once."""
        return self.way != "whole"


def plan_of(model: SentenceTransformer) -> Plan:
    """Look where the first trainable parameter of each tower is (`requires_grad`)."""
    whole = "the whole model in each step: "
    if is_clips(model):
        return _plan_of_layers(model, whole)
    ends = ends_of(model)
    if ends is None:
        return Plan(way="whole", why=f"{whole}its towers do not end in linear maps of their own")
    if not _trains_only_ends(model, ends):
        return Plan(way="whole", why=f"{whole}more than the last maps trains, and it is no CLIP")
    return Plan(way="maps", why="stored features: both frozen towers ran once")


def _plan_of_layers(model: SentenceTransformer, whole: str) -> Plan:
    towers = {kind: tower_of(model, kind) for kind in KINDS}
    if any(tower.config.attention_dropout for tower in towers.values()):
        return Plan(way="whole", why=f"{whole}its layers have dropout")
    depths = {kind: _depth(tower) for kind, tower in towers.items()}
    if all(depth is None for depth in depths.values()):
        return Plan(way="whole", why=f"{whole}both towers train from their first layer")
    runs = {kind: _runs(kind, depths[kind], towers[kind]) for kind in KINDS}
    why = f"stored features: {runs['image']}; {runs['text']}"
    return Plan(way="layers", depths=depths, why=why)


def _trains_only_ends(model: SentenceTransformer, ends: Ends) -> bool:
    last = [part for end in ends.values() for part in end]
    able = parameters_of([*last, *([] if added_maps(model) else behind(model))])
    return all(id(each) in able for each in model.parameters() if each.requires_grad)


def parameters_of(modules: Iterable[nn.Module]) -> set[int]:
    """The identities of modules' parameters."""
    return {id(parameter) for module in modules for parameter in module.parameters()}


def pools_once(model: SentenceTransformer, kind: Kind) -> bool:
    """Whether a tower is frozen as a whole, so that its features are single tokens, and small."""
    plan = plan_of(model)
    if plan.depths is None:
        return plan.stores_features
    return plan.depths[kind] == len(tower_of(model, kind).encoder.layers)


def _depth(tower: Any) -> int | None:
    if any(_trains(module) for module in embeddings_of(tower)):
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


def tower_of(model: SentenceTransformer, kind: Kind) -> Any:
    """One of the two towers of a CLIP."""
    clip = cast(Any, model[0]).model
    return clip.vision_model if kind == "image" else clip.text_model


def embeddings_of(tower: Any) -> list[nn.Module]:
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


def _computed(config: PretrainedConfig) -> str:
    """What a configuration decides beside the weights: activation, heads, epsilons, end of text."""
    return json.dumps(_without_told(config.to_dict()), sort_keys=True)


def _without_told(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_told(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name not in ONLY_TOLD
    }


class Trunk:
    """The frozen part of one tower.

    Args:
        precision: of its matrix products; what comes out is float32.
    """

    def __init__(self, model: SentenceTransformer, kind: Kind, precision: Precision) -> None:
        self.module: Any = model[0]
        self.device = model.device
        self.kind = kind
        self.precision = precision

    @property
    def fingerprint(self) -> str:
        """Of the frozen weights and what is computed with them, the preprocessing, the depth and
        the precision."""
        raise NotImplementedError

    @property
    def side(self) -> int | None:
        """Pixels that the shorter side of its pictures must have; None: as they are.

        What is stored in float32 is of whole pictures, as ever.
        """
        return None if self.precision == "float32" else side_of(self)

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Pictures or titles as the model's own processor makes them ready."""
        return cast(dict[str, Any], self.module.preprocess(list(inputs)))

    @torch.no_grad()
    def run(self, ready: dict[str, Any]) -> list[Tensor]:
        """What enters the first trainable layer, one matrix (tokens, width) an input."""
        enabled = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            return self._run(batch_to_device(ready, self.device))

    def _run(self, ready: dict[str, Any]) -> list[Tensor]:
        return list(self.pooled(ready).unsqueeze(1))

    def pooled(self, ready: dict[str, Any]) -> Tensor:
        """What a tower that is frozen as a whole gives, shape (inputs, width)."""
        raise NotImplementedError


class Layers(Trunk):
    """The first layers of one of CLIP's towers.

    A title's last row is the token that the tower pools, the end of text. Where no layer trains,
    only the pooled token is left: shape (1, width). Where all do, it is what the processor made:
    pixels (colours x height, width), token numbers (tokens, 1).

    Args:
        depth: as in a `Plan`.
    """

    def __init__(
        self, model: SentenceTransformer, kind: Kind, depth: int | None, precision: Precision
    ) -> None:
        super().__init__(model, kind, precision)
        self.tower = tower_of(model, kind)
        self.embeddings = [] if depth is None else embeddings_of(self.tower)
        self.layers = list(self.tower.encoder.layers)[: depth or 0]
        self.keeps_sequence = depth != len(self.tower.encoder.layers)
        if not self.embeddings:
            self.precision = "float32"

    @property
    def fingerprint(self) -> str:
        """As of any trunk; that of an older version of this program is the same."""
        parts: list[str | memoryview] = [self.kind, self.precision, self._preprocessing()]
        parts += [_computed(self.tower.config), *_reduced(self)]
        for module in [*self.embeddings, *self.layers]:
            parts += _weights(module)
        return checksum(f"{len(self.layers)} {self.keeps_sequence}", *parts)

    def _preprocessing(self) -> str:
        if self.kind == "image":
            return cast(str, self.module.processor.image_processor.to_json_string())
        return f"{_rules(self.module.tokenizer)} {self.module.max_seq_length}"

    def _run(self, ready: dict[str, Any]) -> list[Tensor]:
        if self.kind == "text":
            return self._run_titles(ready["input_ids"])
        pixels = ready["pixel_values"]
        if not self.embeddings:
            return list(pixels.flatten(1, 2))
        if self.keeps_sequence:
            return list(run_patches(self.embeddings, self.layers, pixels))
        return super()._run(ready)

    def pooled(self, ready: dict[str, Any]) -> Tensor:
        """Of pictures."""
        return run_patches(self.embeddings, self.layers, ready["pixel_values"])[:, 0]

    def _run_titles(self, ids: Tensor) -> list[Tensor]:
        ends = end_of_text(ids, self.tower.eos_token_id, isinstance(self.module.model, CLIPModel))
        first = torch.zeros_like(ends) if self.keeps_sequence else ends
        hidden = ids[:, :, None]
        if self.embeddings:
            hidden = run_causal(self.tower.config, self.embeddings, self.layers, hidden)
        return [rows[a : b + 1] for rows, a, b in zip(hidden, first, ends, strict=True)]


class WholeTower(Trunk):
    """All of a model up to one of its last maps: shape (1, width) an input.

    What the entrance of the map adds is left out, for a closed form changes it.
    """

    def __init__(self, model: SentenceTransformer, kind: Kind, precision: Precision) -> None:
        super().__init__(model, kind, precision)
        self.ends = cast(Ends, ends_of(model))
        added = added_maps(model)
        modules = list(model)
        self.modules = modules[: modules.index(added)] if added else modules[:1]
        self.seen: Tensor | None = None

    @property
    def fingerprint(self) -> str:
        """Of both towers, since they may share weights."""
        parts: list[str | memoryview] = [self.kind, self.precision, *_reduced(self)]
        for module in (part for each in self.modules for part in each.modules()):
            parts += _settings(module)
        own = parameters_of(part for end in self.ends.values() for part in end)
        for module in self.modules:
            parts += _weights(module, own)
        return checksum("up to the last maps", *parts)

    def pooled(self, ready: dict[str, Any]) -> Tensor:
        """Of pictures or titles."""
        end = self.ends[self.kind]
        hook = end.linear.register_forward_pre_hook(self._note)
        try:
            for module in self.modules:
                ready = module(ready)
        finally:
            hook.remove()
        pooled = self.seen if self.seen is not None else ready["sentence_embedding"]
        self.seen = None
        return cast(Tensor, pooled).float() - self._bias(end)

    def _note(self, _: nn.Module, given: tuple[Tensor]) -> None:
        self.seen = given[0]

    def _bias(self, end: End) -> Tensor | float:
        bias: Tensor | None = getattr(end.entrance, "bias", None)
        return 0.0 if bias is None else bias


def side_of(trunk: Trunk) -> int | None:
    """Pixels that the shorter side of a decoded picture must have: half as many again as the
    processor makes of it, since what a decoder skips is coarser than what a resize leaves out."""
    if trunk.kind == "text":
        return None
    processor = getattr(trunk.module, "processor", None)
    size = getattr(getattr(processor, "image_processor", processor), "size", None) or {}
    sides = [size[name] for name in ("shortest_edge", "height", "width") if name in size]
    return 3 * max(sides) // 2 if sides else None


def trunk_of(model: SentenceTransformer, kind: Kind, plan: Plan, precision: Precision) -> Trunk:
    """The frozen part of one tower, run by PyTorch; nothing is frozen of a model that trains whole.

    Args:
        precision: int8 is float32 here.
    """
    precision = "float32" if precision == "int8" else precision
    if plan.depths is None:
        return WholeTower(model, kind, precision)
    return Layers(model, kind, plan.depths[kind], precision)


def _reduced(trunk: Trunk) -> list[str]:
    return [] if trunk.side is None else [f"reduced to {trunk.side}"]


def _weights(module: nn.Module, but: Iterable[int] = ()) -> list[str | memoryview]:
    """The tensors of a module, but for some parameters."""
    parts: list[str | memoryview] = []
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in but:
            parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", bytes_of(tensor)]
    return parts


def _settings(module: Any) -> list[str]:
    """What decides beside its weights what a module computes, and how its inputs are prepared."""
    if isinstance(module, PreTrainedModel):
        return [_computed(module.config)]
    parts = [type(module).__name__]
    if hasattr(module, "get_config_dict"):
        parts.append(json.dumps(module.get_config_dict(), sort_keys=True, default=str))
    if getattr(module, "tokenizer", None) is not None:
        parts.append(f"{_rules(module.tokenizer)} {module.max_seq_length}")
    processor = getattr(module, "processor", None)
    pictures: Any = getattr(processor, "image_processor", processor)
    if hasattr(pictures, "to_json_string"):
        parts.append(pictures.to_json_string())
    return parts


def _rules(tokenizer: Any) -> str:
    """How a tokenizer cuts a title into tokens."""
    if not hasattr(tokenizer, "backend_tokenizer"):  # written in Python
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    del rules["padding"], rules["truncation"]  # of its last call
    return json.dumps(rules)


def end_of_text(ids: Tensor, eos_token_id: int, highest: bool) -> Tensor:
    """Place of the token that CLIP's text tower pools, shape (titles,).

    Args:
        highest: whether an eos_token_id of 2 is a wrong one, as in the CLIPs of old, and the
            highest token number marks the end (transformers' CLIPTextModel; in MetaCLIP 2 it is
            right).
    """
    marks = ids if highest and eos_token_id == 2 else (ids == eos_token_id).int()
    return marks.argmax(dim=-1)


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
