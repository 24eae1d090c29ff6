"""Train the small CLIP that the sample fine-tunes: `python -m thumbtune.sample.pretrain_clip`.

A real `transformers.CLIPModel` in miniature, trained from scratch on drawn scenes
with plain captions by CLIP's symmetric contrastive loss (Radford et al. 2021, arXiv:2103.00020).
Takes about ten minutes on two cores.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thumbtune.sample import MODEL
from thumbtune.sample.make_channel import COLOUR_WORDS, ENDINGS, LONG, ONE, PLACE_WORDS, TWO
from thumbtune.sample.scenes import Scene, Thing, draw, random_scene

IMAGE_SIZE = 48
SCENES = 20_000
VOCABULARY = 1500

PLACES = {
    "sea": "on the sea",
    "meadow": "in a meadow",
    "desert": "in a desert",
    "night": "at night",
    "snow": "in the snow",
    "sunset": "at sunset",
    "space": "in space",
    "city": "in a city",
    "forest": "in a forest",
    "cave": "in a cave",
}
FRAMES = ("{}", "a picture of {}", "{} in a drawing", "this is {}", "a drawing that shows {}")


def caption(scene: Scene, rng: random.Random) -> str:
    """A plain caption; one in four borrows a word of the channel's, so that none is unknown."""
    things = " and ".join(_noun(thing, rng) for thing in (scene.first, scene.second) if thing)
    place = PLACES[scene.place]
    if rng.random() < 0.25:
        place = rng.choice(PLACE_WORDS[scene.place])
    return rng.choice(FRAMES).format(f"{things} {place}")


def _noun(thing: Thing, rng: random.Random) -> str:
    colour = thing.colour
    if rng.random() < 0.25:
        colour = rng.choice(COLOUR_WORDS[thing.colour])
    return f"a {colour} {thing.kind}"


def scene_and_pixels(seed: int) -> tuple[Scene, NDArray[np.uint8]]:
    """One scene and its picture as CLIP's preprocessing crops it, shape (48, 48, 3)."""
    rng = random.Random(seed)
    scene = random_scene(rng)
    picture = draw(scene, rng, width=160)
    side = picture.height
    left = (picture.width - side) // 2
    square = picture.crop((left, 0, left + side, side)).resize((IMAGE_SIZE, IMAGE_SIZE))
    return scene, np.asarray(square)


def make_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """CLIP's byte-level BPE, with a small vocabulary that still spells any script or emoji."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    blank = CLIPTokenizer(
        vocab={
            "<|startoftext|>": 0,
            "<|endoftext|>": 1,
            **{c: n + 2 for n, c in enumerate(alphabet)},
        },
        merges=[],
    )
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = blank.backend_tokenizer.normalizer
    trained.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>"
    )
    trained.train_from_iterator([*captions, *(f"{c} {c}" for c in alphabet)], trainer)
    vocabulary = list(trained.get_vocab())
    tokens = dict.fromkeys([*alphabet, *(f"{c}</w>" for c in alphabet), *sorted(vocabulary)])
    tokens |= dict.fromkeys(["<|startoftext|>", "<|endoftext|>"])
    merges = _merges(trained)
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        model_max_length=77,
    )


def _merges(tokenizer: Tokenizer) -> Any:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP in miniature: 48-pixel pictures, 8-pixel patches, towers 128 wide."""
    tower = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4}
    return CLIPModel(
        CLIPConfig(
            text_config={
                **tower,
                "num_hidden_layers": 3,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 77,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **tower,
                "num_hidden_layers": 4,
                "image_size": IMAGE_SIZE,
                "patch_size": 8,
            },
            projection_dim=128,
        )
    )


def batches(
    scenes: Sequence[tuple[Scene, NDArray[np.uint8]]], size: int, epochs: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Shuffled batches of pictures and captions, each caption worded anew."""
    order = list(range(len(scenes)))
    for _ in range(epochs):
        rng.shuffle(order)
        for start in range(0, len(order) - size + 1, size):
            drawn = [scenes[row] for row in order[start : start + size]]
            pixels = torch.from_numpy(np.stack([picture for _, picture in drawn]))
            yield pixels.permute(0, 3, 1, 2), [caption(scene, rng) for scene, _ in drawn]


def pretrain(epochs: int, seed: int) -> tuple[CLIPModel, CLIPProcessor]:
    """Draw the scenes and train; the same numbers on every run of one machine."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    with Pool() as pool:
        seeds = range(1_000_000, 1_000_000 + SCENES)
        scenes = list(tqdm(pool.imap(scene_and_pixels, seeds, 100), "drawing", SCENES))
    words = [*ONE, *TWO, *ENDINGS, LONG, *(w for ws in PLACE_WORDS.values() for w in ws)]
    tokenizer = make_tokenizer([caption(scene, rng) for scene, _ in scenes[:3000]] + words * 20)
    processor = CLIPProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        ),
        tokenizer=tokenizer,
    )
    mean = torch.tensor(processor.image_processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_processor.image_std).view(3, 1, 1)
    model = make_model(tokenizer).train()
    size = 256
    steps = epochs * (SCENES // size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    progress = tqdm(batches(scenes, size, epochs, rng), "training", steps)
    for pixels, captions in progress:
        text = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        output = model(pixel_values=(pixels / 255 - mean) / std, **text, return_loss=True)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{output.loss.item():.3f}")
    return model.eval(), processor


def main() -> None:
    """Train and save as a sentence-transformers folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=MODEL)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    model, processor = pretrain(options.epochs, options.seed)
    raw = options.output.with_name(f"{options.output.name}-transformers")
    model.save_pretrained(raw)
    processor.save_pretrained(raw)
    SentenceTransformer(str(raw)).save_pretrained(str(options.output), create_model_card=False)
    for file in raw.iterdir():
        file.unlink()
    raw.rmdir()


if __name__ == "__main__":
    main()
