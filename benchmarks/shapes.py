"""CLIPs of OpenAI's shapes with random weights: as slow as the real ones, without a download."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import CLIPConfig, CLIPModel

from thumbtune.sample import MODEL

Towers = dict[str, dict[str, Any]]
VIT_B_32: Towers = {"text_config": {}, "vision_config": {}}
"""What transformers' CLIPConfig is by default."""
VIT_L_14: Towers = {
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
DIMENSIONS = {id(VIT_B_32): 512, id(VIT_L_14): 768}
TOKENS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


def save_clip(folder: Path, shape: Towers, seed: int = 0, layers: int | None = None) -> Path:
    """Save a CLIP of a shape.

    It has the bundled CLIP's small vocabulary and pictures of 224 pixels.

    Args:
        layers: of each tower, if not as many as the shape has.
    """
    model = SentenceTransformer(str(MODEL), device="cpu")
    module = model[0]
    small = module.model.config.text_config
    depth = {"num_hidden_layers": layers} if layers else {}
    text = shape["text_config"] | {name: getattr(small, name) for name in TOKENS} | depth
    config = CLIPConfig(
        text_config=text,
        vision_config=shape["vision_config"] | depth,
        projection_dim=DIMENSIONS[id(shape)],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module.model = CLIPModel(config)
    images = module.processor.image_processor
    images.size, images.crop_size = {"shortest_edge": 224}, {"height": 224, "width": 224}
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
