"""Models with random weights, small enough to make in a test: a CLIP and a text-only encoder."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

TOWER = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
SIDE = 32  # pixels


def save_tiny_clip(
    folder: Path,
    seed: int = 0,
    side: int = SIDE,
    dimensions: int = 8,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Save a CLIP of some ten thousand parameters that `SentenceTransformer(folder)` loads.

    It spells every title byte by byte, and tells pictures and titles apart, though without sense.

    Args:
        side: of its pictures, in pixels.
        dtype: of its weights as they are stored.
    """
    tokenizer = _byte_tokenizer()
    square = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(
                text_config={
                    **TOWER,
                    "num_hidden_layers": 1,
                    "vocab_size": len(tokenizer),
                    "max_position_embeddings": 77,
                    "bos_token_id": tokenizer.bos_token_id,
                    "eos_token_id": tokenizer.eos_token_id,
                    "pad_token_id": tokenizer.pad_token_id,
                },
                vision_config={
                    **TOWER,
                    "num_hidden_layers": 1,
                    "image_size": side,
                    "patch_size": 8,
                },
                projection_dim=dimensions,
            )
        )
    with TemporaryDirectory() as raw:
        model.save_pretrained(raw)
        CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(raw)
        clip = SentenceTransformer(raw, device="cpu").to(dtype)
        clip.save_pretrained(str(folder), create_model_card=False)
    return folder


def save_tiny_siglip(folder: Path, seed: int = 0, longest: int = 32) -> Path:
    """Save a SigLIP: its text tower pools the last position, be it padding or not.

    It spells titles byte by byte, and reads `longest` tokens; its tokenizer knows no limit.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", *letters])}
    spelled = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    spelled.pre_tokenizer = pre_tokenizers.ByteLevel()
    spelled.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled, pad_token="<pad>", eos_token="</s>"
    )
    text = {"vocab_size": len(vocabulary), "max_position_embeddings": longest}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    tower = TOWER | {"num_hidden_layers": 1}
    config = SiglipConfig(
        text_config=tower | text | ids | {"projection_size": tower["hidden_size"]},
        vision_config=tower | {"image_size": SIDE, "patch_size": 8},
    )
    images = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    with TemporaryDirectory() as raw, torch.random.fork_rng():
        torch.manual_seed(seed)
        SiglipModel(config).save_pretrained(raw)
        SiglipProcessor(images, tokenizer).save_pretrained(raw)
        model = SentenceTransformer(raw, device="cpu")
        model.save_pretrained(str(folder), create_model_card=False)
    return folder


def save_tiny_text_model(
    folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, dropout: float = 0.1
) -> Path:
    """Save a text-only model that `SentenceTransformer(folder)` loads: a BERT of one layer.

    It reads letter by letter, so that titles of different letters have different embeddings.
    """
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        shape = TOWER | {"num_hidden_layers": 1, "vocab_size": len(vocabulary)}
        bert = BertModel(BertConfig(**shape, **dropouts))
    with TemporaryDirectory() as raw:
        bert.save_pretrained(raw)
        BertTokenizer(vocab=vocabulary, model_max_length=128).save_pretrained(raw)
        transformer = Transformer(raw)
        pooling = Pooling(transformer.get_embedding_dimension())
        model = SentenceTransformer(modules=[transformer, pooling], device="cpu").to(dtype)
        model.save_pretrained(str(folder), create_model_card=False)
    return folder


def _byte_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
