"""CLIPs of OpenAI's shapes with random weights: as slow as the real ones, without a download."""

from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"text_config": {}, "vision_config": {}},
    "ViT-L/14": {
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
        "projection_dim": 768,
    },
}
"""By what they differ from transformers' CLIPConfig, which is ViT-B/32's by default."""
TOKENS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


def save_clip(folder: Path, shape: str, seed: int = 0, layers: int | None = None) -> Path:
    """Save a CLIP of a shape.

    It has the bundled CLIP's small vocabulary and pictures of 224 pixels.

    Args:
        shape: one of `SHAPES`.
        layers: of each tower, if not as many as the shape has.
    """
    import torch  # here, so that --help does not wait for it
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPConfig, CLIPModel

    from thumbtune.sample import MODEL

    model = SentenceTransformer(str(MODEL), device="cpu")
    module = model[0]
    small = module.model.config.text_config
    depth = {"num_hidden_layers": layers} if layers else {}
    towers = SHAPES[shape]
    text = towers["text_config"] | {name: getattr(small, name) for name in TOKENS} | depth
    vision = towers["vision_config"] | depth
    config = CLIPConfig(**towers | {"text_config": text, "vision_config": vision})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module.model = CLIPModel(config)
    images = module.processor.image_processor
    images.size, images.crop_size = {"shortest_edge": 224}, {"height": 224, "width": 224}
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
