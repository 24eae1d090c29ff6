"""A CLIP of ViT-B/32's shape with random weights: as slow as the real one, without a download."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from transformers import CLIPConfig, CLIPModel

from thumbtune.sample import MODEL


def save_vit_b32(folder: Path, seed: int = 0, layers: int | None = None) -> Path:
    """Save a CLIP of OpenAI's ViT-B/32 shape (transformers' default CLIPConfig).

    It has the bundled CLIP's small vocabulary and ViT-B/32's pictures of 224 pixels.

    Args:
        layers: of each tower; its twelve if not given.
    """
    model = SentenceTransformer(str(MODEL), device="cpu")
    module = model[0]
    small = module.model.config.text_config
    tokens = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    text = {name: getattr(small, name) for name in tokens}
    depth = {"num_hidden_layers": layers} if layers else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module.model = CLIPModel(CLIPConfig(text_config=text | depth, vision_config=depth))
    images = module.processor.image_processor
    images.size, images.crop_size = {"shortest_edge": 224}, {"height": 224, "width": 224}
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
