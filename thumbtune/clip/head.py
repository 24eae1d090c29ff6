"""The end of a model that trains: a module that reads stored features."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from thumbtune.clip.ends import KINDS, End, Ends, Kind, added_maps, behind, ends_of
from thumbtune.clip.towers import Plan, embeddings_of, run_causal, run_patches, tower_of


class Head(InputModule):
    """What is left of a model after the frozen part, whose outputs are stored.

    It shares its parameters with the model that it is cut from, so what it learns is there as well.
    Its inputs are keys of features.
    """

    def __init__(
        self, model: SentenceTransformer, plan: Plan, features: dict[Kind, dict[str, Tensor]]
    ) -> None:
        super().__init__()
        ends = cast(Ends, ends_of(model))  # no model is cut that has none
        self.entrances = nn.ModuleDict({kind: ends[kind].entrance for kind in KINDS})
        self.maps = nn.ModuleDict({kind: ends[kind].linear for kind in KINDS})
        self.behind = nn.Sequential(*([] if added_maps(model) else behind(model)))
        self.image_embeddings, self.image_layers = _trainable(model, "image", plan)
        self.text_embeddings, self.text_layers = _trainable(model, "text", plan)
        self.text_config = tower_of(model, "text").config if plan.depths else None
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
    def ends(self) -> dict[Kind, End]:
        """What a tower's output passes at last, into the shared space."""
        return {kind: End(self.entrances[kind], cast(Any, self.maps[kind])) for kind in KINDS}

    @property
    def lowered(self) -> dict[Kind, nn.Parameter]:
        """What a closed form can subtract means from: what is added by the map, or before it."""
        added = {
            kind: linear.bias if linear.bias is not None else getattr(entrance, "bias", None)
            for kind, (entrance, linear) in self.ends.items()
        }
        return {kind: bias for kind, bias in added.items() if bias is not None}

    @property
    def ends_in_maps(self) -> bool:
        """Whether nothing comes behind the last maps but a scaling."""
        return len(self.behind) == 0

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, shape (inputs, dimensions)."""
        linear = self.maps[features["modality"]]
        embedded = {**features, "sentence_embedding": linear(self.pooled(features))}
        return cast(dict[str, Any], self.behind(embedded))

    def pooled(self, features: dict[str, Any]) -> Tensor:
        """What enters the last map, shape (inputs, width)."""
        rows = [self.matrices[place] for place in features["input_ids"][:, 0].tolist()]
        kind: Kind = features["modality"]
        hidden = self._run_images(rows) if kind == "image" else self._run_titles(rows)
        return cast(Tensor, self.entrances[kind](hidden))

    @property
    def _device(self) -> torch.device:
        return next(self.maps.parameters()).device

    def _run_images(self, rows: list[Tensor]) -> Tensor:
        hidden = torch.stack(rows).to(self._device)
        if len(self.image_embeddings):
            hidden = hidden.unflatten(1, (3, -1))
        return run_patches(self.image_embeddings, self.image_layers, hidden)[:, 0]

    def _run_titles(self, rows: list[Tensor]) -> Tensor:
        last = torch.tensor([len(row) - 1 for row in rows], device=self._device)
        hidden = pad_sequence(rows, batch_first=True).to(self._device)
        if self.text_config is not None and len(self.text_layers):
            layers = self.text_embeddings, self.text_layers
            hidden = run_causal(self.text_config, *layers, hidden)
        return hidden[torch.arange(len(rows), device=self._device), last]

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Only the whole model is saved."""
        raise NotImplementedError("Save the model that the head was cut from.")


def _trainable(
    model: SentenceTransformer, kind: Kind, plan: Plan
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The embeddings and the layers that the trunk leaves to the head."""
    if plan.depths is None:
        return nn.ModuleList(), nn.ModuleList()
    tower, depth = tower_of(model, kind), plan.depths[kind]
    embeddings = embeddings_of(tower) if depth is None else []
    return nn.ModuleList(embeddings), nn.ModuleList(tower.encoder.layers[depth or 0 :])
