"""Small channels: the bundled one's first videos as a trained version, and a folder to train on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from tests.tiny_clip import save_tiny_clip
from thumbtune.channel.registry import Registry, Version
from thumbtune.channel.sources.folder.listing import list_folder
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import find_model
from thumbtune.data.thumbnails import Example, ThumbnailStore
from thumbtune.learning.job import save
from thumbtune.parameters import ThumbnailsParameters, TrainParameters
from thumbtune.sample import CHANNEL, MODEL
from thumbtune.store.workspace import Workspace

SPLITS = ("train", "train", "valid", "test")


def make_examples(workspace: Workspace, count: int) -> list[Example]:
    """Rows of the bundled channel, whose pictures are in the workspace now."""
    store = ThumbnailStore(workspace, ThumbnailsParameters(), refresh=False)
    rows = []
    for n, video in enumerate(list_folder(CHANNEL)[0][:count]):
        thumbnail = store.get(video)
        assert thumbnail.image
        row = video.model_dump() | {"split": SPLITS[n % 4], "title_neg": None}
        rows.append(Example(**row, image=thumbnail.image, crop=thumbnail.crop))
    return rows


def add_version(
    workspace: Workspace,
    channel: str = "@tester",
    count: int = 40,
    seed: int = 0,
    whole: bool = False,
    clip: Path = MODEL,
) -> Version:
    """A version whose projections differ from the untouched model's, and the champion.

    Args:
        whole: its weights lie in one file, as those of old versions do.
    """
    untouched = find_model("sample" if clip == MODEL else str(clip))
    model = SentenceTransformer(str(clip))
    freeze(model, ["projection"])
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        weight = model[0].model.text_projection.weight
        weight += 0.02 * torch.randn_like(weight)
    tuned = save(model, workspace, "sample (fine-tuned)", None if whole else untouched)
    rows = make_examples(workspace, count)
    registry = Registry(workspace, "youtube", channel)
    version = registry.add(
        model=tuned,
        untouched=untouched,
        parameters=TrainParameters(channel=channel, model="sample"),
        examples=workspace.write_table("examples", rows),
        learned_from=[row.id for row in rows if row.split != "test"],
        seen=[row.id for row in rows],
        metrics={"Recall@1": 0.5},
    )
    registry.decide(version.number, version.number, "promoted")
    return version


def picture_of(workspace: Workspace, example: Example) -> Path:
    """The file of an example's thumbnail."""
    return workspace.root / example.image


def quick_run(root: Path) -> dict[str, Any]:
    """Parameters for a quick run of the train flow on a folder of pictures, all made at a place."""
    folder = root / "channel"
    folder.mkdir()
    rows = []
    for n in range(60):
        colours = np.random.default_rng(n).integers(40, 255, (9, 16, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((320, 180)).save(folder / f"{n}.jpg")
        rows.append({"id": str(n), "title": f"Title number {n}", "image": f"{n}.jpg"})
    (folder / "manifest.json").write_text(json.dumps(rows))
    clip = str(save_tiny_clip(root / "clip"))
    return {
        "source": "folder",
        "channel": str(folder),
        "model": clip,
        "workspace": root / "workspace",
        "negatives": {"text_model": clip},
        "evaluation": {"method": "holdout"},
        "training": {"recipe": "given", "learning_rate": 0.01, "epochs": 1},
    }
