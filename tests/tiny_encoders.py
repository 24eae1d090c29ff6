"""Dual encoders of other kinds than CLIP, with random weights, small enough to make in a test."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router
from sentence_transformers.sentence_transformer.modules import Normalize
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    AltCLIPProcessor,
    BertConfig,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
    CLIPProcessor,
    MetaClip2Config,
    MetaClip2Model,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.tiny_clip import SIDE, TOWER, save_tiny_clip, save_tiny_siglip, save_tiny_text_model

LAYERS = TOWER | {"num_hidden_layers": 2}
PICTURES = LAYERS | {"image_size": SIDE, "patch_size": 8}
BERTS = LAYERS | {
    "max_position_embeddings": 80,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,  # or all titles embed nearly alike
}
LONGEST = 64
"""Tokens; a BERT's positions may begin behind its padding."""


def save_metaclip_2(folder: Path) -> Path:
    """Its end of text is token 2, which in a CLIP of old is wrong."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", *letters]
    spelled = Tokenizer(BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=[]))
    spelled.pre_tokenizer = pre_tokenizers.ByteLevel()
    marks = [("<s>", 0), ("</s>", 2)]
    spelled.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=77,
    )
    text = {"vocab_size": len(tokens), "max_position_embeddings": 77}
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = MetaClip2Config(
        text_config=LAYERS | text | ids, vision_config=PICTURES, projection_dim=8
    )
    processor = CLIPProcessor(image_processor=_pictures(), tokenizer=tokenizer)
    return _saved(MetaClip2Model, config, processor, folder)


def save_chinese_clip(folder: Path, positions: int = 80) -> Path:
    """A BERT reads its titles; a norm of the last layer feeds its projection."""
    text = BERTS | {"vocab_size": len(_letters()), "max_position_embeddings": positions}
    config = ChineseCLIPConfig(text_config=text, vision_config=PICTURES, projection_dim=8)
    processor = ChineseCLIPProcessor(image_processor=_pictures(), tokenizer=_speller())
    return _saved(ChineseCLIPModel, config, processor, folder)


def save_altclip(folder: Path) -> Path:
    """A linear map with a bias feeds its text projection."""
    text = BERTS | {"vocab_size": len(_letters()), "project_dim": 12, "pad_token_id": 0}
    config = AltCLIPConfig(text_config=text, vision_config=PICTURES, projection_dim=8)
    processor = AltCLIPProcessor(image_processor=_pictures(), tokenizer=_speller())
    return _saved(AltCLIPModel, config, processor, folder)


def save_vision_text_dual_encoder(folder: Path, text: PretrainedConfig | None = None) -> Path:
    """A ViT and a BERT, whose poolers end in a tanh: no bias comes before the projections.

    Args:
        text: of another text tower.
    """
    dropless = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**PICTURES, **dropless),
        text or BertConfig(**BERTS, vocab_size=len(_letters())),
        projection_dim=8,
    )
    processor = VisionTextDualEncoderProcessor(image_processor=_pictures(), tokenizer=_speller())
    return _saved(VisionTextDualEncoderModel, config, processor, folder)


def save_clip_with(*behind: nn.Module) -> Callable[[Path], Path]:
    """A CLIP with modules of sentence-transformers behind it."""

    def save(folder: Path) -> Path:
        with TemporaryDirectory() as raw:
            clip = SentenceTransformer(str(save_tiny_clip(Path(raw) / "clip")), device="cpu")
            model = SentenceTransformer(modules=[*clip, *behind], device="cpu")
            model.save_pretrained(str(folder), create_model_card=False)
        return folder

    return save


def _save_bert(folder: Path) -> Path:
    return save_tiny_text_model(folder, dropout=0.0)


def save_two_models(folder: Path, save_text: Callable[[Path], Path] = _save_bert) -> Path:
    """A CLIP for pictures and another model, a BERT, for titles, side by side in one model."""
    with TemporaryDirectory() as raw:
        clip = SentenceTransformer(str(save_tiny_clip(Path(raw) / "clip")), device="cpu")
        reader = SentenceTransformer(str(save_text(Path(raw) / "text")), device="cpu")
        routes = Router({"image": list(clip), "text": list(reader)})
        model = SentenceTransformer(modules=[routes], device="cpu")
        model.save_pretrained(str(folder), create_model_card=False)
    return folder


def _dense() -> Dense:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Dense(8, 6)


OWN_MAPS = {
    "CLIP": save_tiny_clip,
    "CLIP, normalised": save_clip_with(Normalize()),
    "MetaCLIP 2": save_metaclip_2,
    "ChineseCLIP": save_chinese_clip,
    "AltCLIP": save_altclip,
    "vision-text dual encoder": save_vision_text_dual_encoder,
}
"""Models whose towers end in a linear map each."""

ADDED_MAPS = {
    "SigLIP": save_tiny_siglip,
    "CLIP and a layer": save_clip_with(_dense(), Normalize()),
    "two models": save_two_models,
}
"""Models to which such maps are added."""

KINDS_OF_MODELS = OWN_MAPS | ADDED_MAPS


def _saved(
    kind: type[PreTrainedModel], config: PretrainedConfig, processor: ProcessorMixin, folder: Path
) -> Path:
    with TemporaryDirectory() as raw, torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(raw)
        processor.save_pretrained(raw)
        loaded = SentenceTransformer(raw, device="cpu")
        loaded.save_pretrained(str(folder), create_model_card=False)
    return folder


def _pictures() -> CLIPImageProcessorPil:
    square = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)


def _letters() -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]


def _speller() -> BertTokenizer:
    vocabulary = {token: number for number, token in enumerate(_letters())}
    return BertTokenizer(vocab=vocabulary, model_max_length=LONGEST)
