"""Does fine-tuning help, whatever the seed? `python benchmarks/seeds.py --source sample …`

Takes the command line of train_flow.py, trains with five seeds on one split and prints Recall@1 on
test of each, with mean and spread. `--split.*` and `--seed` fix the split and the negatives.
"""

import logging
import statistics
import time

from tasks.evaluation import RecallEvaluator, embed_titles
from tasks.freezing import freeze
from tasks.models import load_model, resolve_model
from tasks.negatives import pair_titles
from tasks.parameters import SPLITS, TrainParameters, parse_command_line
from tasks.splits import split_videos
from tasks.thumbnails import Example, ThumbnailStore, examples_of
from tasks.training import fine_tune
from tasks.videos import list_videos
from tasks.workspace import Workspace

SEEDS = range(5)


def prepare(workspace: Workspace, parameters: TrainParameters) -> dict[str, list[Example]]:
    """The channel's examples by split, as the flow makes them."""
    source, channel = parameters.source, parameters.channel
    videos = list_videos(workspace, source, channel, parameters.videos).videos
    splits = split_videos(videos, parameters.split, parameters.seed)
    text_model = load_model(resolve_model(parameters.negatives.text_model))
    pairs = pair_titles(
        splits, parameters.negatives, parameters.seed, lambda t: embed_titles(text_model, t)
    )
    store = ThumbnailStore(workspace, parameters.thumbnails, refresh=False)
    thumbnails = [store.get(video) for video in videos]
    examples, _ = examples_of(pairs, thumbnails, parameters.thumbnails.max_bad_share)
    return {split: [row for row in examples if row.split == split] for split in SPLITS}


def main() -> None:
    """Train with each seed and print the table."""
    parameters = parse_command_line()
    workspace = Workspace.open(parameters.workspace)
    rows = prepare(workspace, parameters)
    reference = resolve_model(parameters.model)
    measures = parameters.evaluation
    evaluator = RecallEvaluator(workspace, rows["test"], "test", measures, parameters.seed)
    key = "yt-title-thumbnail-test_Recall@1"
    untouched = evaluator(load_model(reference))[key]
    results = []
    for seed in SEEDS:
        model = load_model(reference)
        freeze(model, parameters.training.trainable)
        started = time.monotonic()
        train, valid = rows["train"], rows["valid"]
        logger = logging.getLogger("seeds")
        fine_tune(model, workspace, train, valid, parameters.training, measures, seed, logger)
        results.append(evaluator(model)[key])
        print(f"seed {seed}: {results[-1]:.3f} ({time.monotonic() - started:.1f} s)")
    mean, spread = statistics.mean(results), statistics.stdev(results)
    print(f"Recall@1 on test, {len(rows['test'])} videos: untouched {untouched:.3f}, ", end="")
    print(f"fine-tuned {mean:.3f} ± {spread:.3f} (mean and deviation of {len(results)} seeds)")


if __name__ == "__main__":
    main()
