"""The jobs of benchmarks/training.py, encoding.py and gpu.py."""

import gc
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from thumbtune.clip.features import head_of
from thumbtune.clip.freezing import freeze
from thumbtune.clip.towers import Precision
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.learning.columns import training_dataset
from thumbtune.learning.evaluation import RecallEvaluator
from thumbtune.learning.training import fine_tune
from thumbtune.parameters import SPLITS, EvaluationParameters, TrainingParameters
from thumbtune.sample.make_channel import title
from thumbtune.sample.scenes import draw, random_scene
from thumbtune.store.workspace import Workspace

SEED = 42
Job = Callable[[Workspace, SentenceTransformer, int, int], None]
MEASURES = EvaluationParameters()


def draw_channel(workspace: Workspace, videos: int, size: tuple[int, int] = (480, 270)) -> None:
    """Thumbnails; of 480x270 pixels, as a real channel's after the letterbox is cut."""
    rng = random.Random(SEED)
    (workspace.root / "thumbnails").mkdir(exist_ok=True)
    titles = []
    for number in range(videos):
        scene = random_scene(rng)
        picture = draw(scene, rng)
        picture = picture if picture.size == size else picture.resize(size)
        picture.save(workspace.root / f"thumbnails/{number}.jpg", quality=90)
        titles.append(f"{title(scene, number, rng)} ({number})")
    (workspace.root / "titles.txt").write_text("\n".join(titles))


def examples(workspace: Workspace, pairs: int) -> list[Example]:
    """The first pairs, split 70 / 15 / 15 %; each title serves once as a negative."""
    titles = (workspace.root / "titles.txt").read_text().split("\n")[:pairs]
    first, second = int(0.7 * pairs), int(0.7 * pairs) + int(0.15 * pairs)
    rows = []
    for row, text in enumerate(titles):
        split = "train" if row < first else "valid" if row < second else "test"
        negative = titles[(row + pairs // 2) % pairs]
        pair: Any = {"id": str(row), "title": text, "title_neg": negative, "split": split}
        rows.append(Example(**pair, thumbnails={}, image=f"thumbnails/{row}.jpg"))
    return rows


def by_split(rows: Sequence[Example]) -> dict[str, list[Example]]:
    """Rows of each split."""
    return {split: [row for row in rows if row.split == split] for split in SPLITS}


class ArticleRecall(BaseEvaluator):
    """The article's Recall@1: cosine of every picture with every title of the split."""

    def __init__(self, workspace: Workspace, rows: Sequence[Example]) -> None:
        super().__init__()
        self.images = [load_image(workspace, row) for row in rows]
        self.titles = [row.title for row in rows]

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Run both towers over the split."""
        images = model.encode(self.images, convert_to_tensor=True, show_progress_bar=False)
        titles = model.encode(self.titles, convert_to_tensor=True, show_progress_bar=False)
        ranked = model.similarity(images, titles).argmax(dim=1).tolist()
        return {"Recall@1": statistics.mean(a == b for a, b in enumerate(ranked))}


def article(workspace: Workspace, model: SentenceTransformer, pairs: int, epochs: int) -> None:
    """The article's sections 5 to 8."""
    rows = by_split(examples(workspace, pairs))
    recall = {split: ArticleRecall(workspace, rows[split]) for split in rows}
    recall["train"](model)
    recall["valid"](model)
    with tempfile.TemporaryDirectory() as scratch:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=scratch,
                num_train_epochs=epochs,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=16,
                learning_rate=1e-4,
                eval_strategy="epoch",
                save_strategy="no",
                logging_steps=1,
                seed=SEED,
                report_to=[],
                dataloader_pin_memory=False,
            ),
            train_dataset=training_dataset(workspace, rows["train"]),
            eval_dataset=training_dataset(workspace, rows["valid"]),
            loss=MultipleNegativesRankingLoss(model),
            evaluator=SequentialEvaluator([recall["train"], recall["valid"]]),
        ).train()
    for evaluator in recall.values():
        evaluator(model)


def ours(workspace: Workspace, model: SentenceTransformer, pairs: int, epochs: int) -> None:
    """What encode-features, train and both evaluate tasks compute."""
    everything = examples(workspace, pairs)
    head, _ = head_of(workspace, model, everything)
    rows = by_split(everything)
    evaluators = [RecallEvaluator(workspace, rows[split], split, MEASURES) for split in rows]
    for evaluator in evaluators:
        evaluator(head)
    settings = TrainingParameters(epochs=epochs)
    train, valid = rows["train"], rows["valid"]
    fine_tune(head, workspace, train, valid, settings, MEASURES, SEED)
    for evaluator in evaluators:
        evaluator(head)


def floor(workspace: Workspace, model: SentenceTransformer, pairs: int, epochs: int) -> None:
    """One forward pass of the unique pictures and titles."""
    rows = examples(workspace, pairs)
    for start in range(0, pairs, 256):
        images = [load_image(workspace, row) for row in rows[start : start + 256]]
        model.encode(images, show_progress_bar=False)
    model.encode([row.title for row in rows], show_progress_bar=False)


def encode_in(precision: Precision) -> Job:
    """What the encode-features task computes."""

    def encode(workspace: Workspace, model: SentenceTransformer, pairs: int, epochs: int) -> None:
        head_of(workspace, model, examples(workspace, pairs), precision)

    return encode


JOBS: dict[str, Job] = {
    "article": article,
    "cold": ours,
    "warm": ours,
    "floor": floor,
    "float32": encode_in("float32"),
    "bfloat16": encode_in("bfloat16"),
    "int8": encode_in("int8"),
}


def measure(job: str, folder: Path, clip: Path, pairs: int, epochs: int) -> tuple[float, float]:
    """Seconds beyond loading the model, and the peak memory of this process in GB."""
    model = SentenceTransformer(str(clip))
    freeze(model, ["projection"])
    for parameter in model.parameters():
        parameter.sum()  # weights are mapped: read them before the clock starts
    gc.collect()
    started = time.perf_counter()
    JOBS[job](Workspace.open(folder), model, pairs, epochs)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
