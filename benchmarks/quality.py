"""How good is the recipe that is chosen? `python benchmarks/quality.py --channel DIR --base DIR`

Random partitions of a channel: three tenths are test, from the rest learns, from the same start,

- untouched: nothing does;
- article: its two epochs of batches of 16 at 0.0001, on the whole rest;
- sweep: the best of so many trials by 5 folds, then trained on the whole rest;
- auto: the recipe that `training.recipe auto` takes by 5 folds, on the whole rest.

What belongs together (equal titles, nearly the same pictures) is on one side. Mean Recall@1 and MRR
on test, the difference of auto to the others with its 95 % interval (Student's t of the partitions'
differences, widened since partitions share videos: Nadeau and Bengio 2003), and the seconds of a
choice. `--promotion` prints what rules make of challengers that are worse, `--interval` how wide
the figure of 76 videos is, `--seconds` how long a choice takes at the widths of real CLIPs; in
markdown.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
TEST = 0.3
WAYS = ("untouched", "article", "sweep", "auto")


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channel", type=Path, nargs="+", help="folders with a manifest")
    parser.add_argument("--base", nargs="+", default=["sample"], help="CLIPs: sample, or folders")
    parser.add_argument("--pairs", type=int, nargs="+", default=[50, 100, 0], help="0: all")
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--sweeps", type=int, default=20, help="partitions with a sweep, the first")
    parser.add_argument("--trials", type=int, default=40)
    trainer = "the sweep trains with sentence-transformers' Trainer"
    parser.add_argument("--by-trainer", action="store_true", help=trainer)
    parser.add_argument("--promotion", action="store_true")
    parser.add_argument("--interval", action="store_true")
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--quick", action="store_true", help="little of all, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.partitions, options.sweeps, options.trials = [40], 2, 1, 2
        options.promotion = options.interval = options.seconds = options.by_trainer = True
    sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed
    options.channel = options.channel or [ROOT / "sample" / "channel"]
    if options.partitions:
        print_recipes(options)
    if options.interval:
        print_intervals(options)
    if options.seconds:
        print_seconds(options.channel, options.pairs)
    if options.promotion:
        print_promotions(50 if options.quick else 1000)


def print_recipes(options: argparse.Namespace) -> None:
    """A line for each channel, base and number of pairs."""
    print("| channel | base | pairs | partitions (with sweep) | titles |", end="")
    print(" untouched | article | sweep | auto |", end="")
    print(" auto - untouched | auto - article | auto - sweep | choice, sweep / auto |")
    print("| --- | --- " + "| ---: " * 7 + "| --- " * 3 + "| --- |")
    for channel in options.channel:
        for base in options.base:
            for pairs in options.pairs:
                print(line(channel, base, pairs, options), flush=True)


def line(channel: Path, base: str, pairs: int, options: argparse.Namespace) -> str:
    """One line: Recall@1 / MRR of each way, differences of MRR with their intervals."""
    results = []
    for seed in range(options.partitions):
        trials = options.trials if seed < options.sweeps else 0
        results.append(partition(channel, base, pairs, seed, trials, options.by_trainer))
        print(json.dumps({"pairs": pairs, "seed": seed} | results[-1]), file=sys.stderr, flush=True)
    swept = [result for result in results if "sweep" in result]
    learned, tested = results[0]["learned"], results[0]["tested"]
    cells = []
    for way in WAYS:
        some = [result[way] for result in results if way in result]
        cells.append(" / ".join(f"{mean:.3f}" for mean in np.mean(some, axis=0)) if some else "")
    for other in ("untouched", "article", "sweep"):
        differences = [r["auto"][1] - r[other][1] for r in results if other in r]
        cells.append(with_interval(differences, tested / learned) if differences else "")
    timed = {"sweep": swept, "auto": results}  # the first choice imports libraries
    seconds = [np.median([r["seconds"][way] for r in some]) for way, some in timed.items() if swept]
    told = (
        f"{seconds[0]:.0f} s / {seconds[1]:.1f} s = {seconds[0] / seconds[1]:.0f}" if swept else ""
    )
    name = Path(base).name
    counts = f"{learned + tested} | {len(results)} ({len(swept)}) | {tested}"
    return f"| {channel.resolve().name} | {name} | {counts} | {' | '.join(cells)} | {told} |"


def with_interval(differences: list[float], ratio: float) -> str:
    """The mean difference and its 95 % interval.

    Args:
        ratio: of tested to learned videos of a partition.
    """
    from scipy.stats import t

    count = len(differences)
    mean = float(np.mean(differences))
    if count < 2:
        return f"{mean:+.3f}"
    error = np.sqrt((1 / count + ratio) * np.var(differences, ddof=1))
    reach = float(t.ppf(0.975, count - 1) * error)
    return f"{mean:+.3f} ({mean - reach:+.3f} to {mean + reach:+.3f})"


def partition(
    channel: Path, base: str, pairs: int, seed: int, trials: int, by_trainer: bool
) -> dict:
    """Recall@1 and MRR on test of each way, and the seconds of the two choices."""
    from threadpoolctl import threadpool_limits

    from thumbtune.data.splits import fold_numbers
    from thumbtune.learning.candidates import UNTOUCHED, article_candidate
    from thumbtune.learning.choice import Learner

    rows = drawn(channel, pairs, seed)
    tested = [row for row in rows if row.split == "test"]
    known = [row for row in rows if row.split == "train"]
    result: dict = {"learned": len(known), "tested": len(tested), "seconds": {}}
    with tempfile.TemporaryDirectory() as scratch, threadpool_limits(1):
        trainer = trainer_on(base, rows, Path(scratch), seed)
        mined = trainer.with_negatives(known, trainer.base.negatives)  # keeps the titles' vectors
        started = time.monotonic()
        chosen = Learner(trainer, known, fold_numbers(known, seed)).choose().taken
        result["seconds"]["auto"] = time.monotonic() - started
        ways = {
            "untouched": (UNTOUCHED, known),
            "article": (article_candidate(trainer.article), mined),
            "auto": (chosen, mined if chosen.recipe else known),
        }
        if trials:
            searcher = trainer_on(base, rows, Path(scratch), seed, True) if by_trainer else trainer
            started = time.monotonic()
            ways["sweep"] = swept(searcher, known, Path(scratch), trials)
            result["seconds"]["sweep"] = time.monotonic() - started
        for way, (candidate, learned) in ways.items():
            metrics = trainer.measure(trainer.do(candidate, learned), tested, "test")
            result[way] = [metrics["Recall@1"], metrics["MRR"]]
    result["chosen"] = chosen.told
    return result


def swept(trainer, known, scratch: Path, trials: int):  # type: ignore[no-untyped-def]
    """The choice of a sweep as a candidate, and the rows with the negatives that it wants."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from thumbtune.learning.candidates import Candidate
    from thumbtune.learning.sweep import search
    from thumbtune.parameters import SearchParameters

    journal = JournalStorage(JournalFileBackend(str(scratch / "journal")))
    best, _ = search(trainer, known, SearchParameters(trials=trials, folds=5), journal, "quality")
    candidate = Candidate(name="the sweep's choice", recipe=best)
    return candidate, trainer.with_negatives(known, best.negatives)


STORES: dict[Path, list] = {}


def drawn(channel: Path, pairs: int, seed: int) -> list:
    """So many videos of a channel, those of test in groups of their own."""
    from thumbtune.data.splits import number_groups

    rows = examples_of(channel)
    draw = np.random.default_rng(seed)
    some = [rows[row] for row in draw.permutation(len(rows))[: pairs or len(rows)]]
    groups = number_groups(some)
    order = draw.permutation(groups.max() + 1)
    tested = set(order[: round(TEST * len(order))].tolist())
    return [
        row.model_copy(update={"split": "test" if group in tested else "train"})
        for row, group in zip(some, groups.tolist(), strict=True)
    ]


def examples_of(channel: Path) -> list:
    """All videos of a folder whose thumbnails are of use; they are kept for the next partition."""
    from thumbtune.channel.sources.folder.listing import list_folder
    from thumbtune.data.near_duplicates import looks_of
    from thumbtune.data.thumbnails import Example, ThumbnailStore
    from thumbtune.parameters import ThumbnailsParameters

    if channel not in STORES:
        store = ThumbnailStore(workspace(), ThumbnailsParameters(), refresh=False)
        found = [(video, store.get(video)) for video in list_folder(channel)[0]]
        thumbnails = [thumbnail for _, thumbnail in found]
        looks = {look.id: look.look for look in looks_of(workspace(), channel.name, thumbnails)}
        STORES[channel] = [
            Example(
                **video.model_dump() | {"split": "train", "title_neg": None},
                look=looks[video.id],
                image=thumbnail.image,
                crop=thumbnail.crop,
            )
            for video, thumbnail in found
            if thumbnail.image
        ]
    return STORES[channel]


def workspace():  # type: ignore[no-untyped-def]
    """One for all partitions, so that each picture is encoded once for each base."""
    from thumbtune.store.workspace import Workspace

    return Workspace.open(Path(tempfile.gettempdir()) / "thumbtune-quality")


def trainer_on(  # type: ignore[no-untyped-def]
    base: str, rows: list, scratch: Path, seed: int, by_trainer: bool = False
):
    """A base model on some videos, with the article's parameters; the base compares titles too.

    Args:
        by_trainer: whether each training has sentence-transformers' Trainer around it.
    """
    from thumbtune.clip.models import find_model
    from thumbtune.learning.recipes import RecipeTrainer
    from thumbtune.learning.training import fine_tune
    from thumbtune.parameters import TrainParameters

    class ByTrainer(RecipeTrainer):
        def _fine_tune(self, train, valid, training, seed) -> None:  # type: ignore[no-untyped-def]
            how = self.parameters.evaluation
            fine_tune(self.head, self.workspace, train, valid, training, how, seed)

    model = find_model(base)
    parameters = TrainParameters.model_validate({"source": "sample", "model": base, "seed": seed})
    kind = ByTrainer if by_trainer else RecipeTrainer
    return kind(workspace(), model, model, rows, parameters, "float32")


def print_intervals(options: argparse.Namespace) -> None:
    """How wide the 95 % interval of the headline figure of 76 videos is, both ways to measure."""
    print("\n| channel | base | test of 12: Recall@1 / MRR | cross-fit of 76: Recall@1 / MRR |")
    print("| --- | --- | --- | --- |")
    for channel in options.channel:
        for base in options.base:
            widths = [widths_of(channel, base, seed) for seed in range(5)]
            cells = [" / ".join(f"{width:.3f}" for width in mean) for mean in np.mean(widths, 0)]
            print(f"| {channel.resolve().name} | {Path(base).name} | {' | '.join(cells)} |")


def widths_of(channel: Path, base: str, seed: int) -> list[list[float]]:
    """Of a test split of 12 and of a cross-fit, the widths of the intervals."""
    from thumbtune.data.splits import fold_numbers
    from thumbtune.learning.choice import Learner
    from thumbtune.learning.evaluation import embed_videos, measure

    rows = drawn(channel, 76, seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_on(base, rows, Path(scratch), seed)
        learner = Learner(trainer, rows, fold_numbers(rows, seed))
        chosen = learner.choose().taken
        crossed = learner.cross_fit(chosen)
        how = trainer.parameters.evaluation
        folded, _ = measure(crossed.chosen, rows, "out_of_fold", how, crossed.galleries)
        test = rows[:12]
        embedded = embed_videos(trainer.do(chosen, rows[12:]), trainer.workspace, test)
        held_out, _ = measure(embedded, test, "test", how)
    return [
        [high - low for low, high in (each.intervals[name] for name in ("Recall@1", "MRR"))]
        for each in (held_out, folded)
    ]


def print_seconds(channels: list[Path], pairs: list[int]) -> None:
    """CPU seconds of a choice, and of a cross-fit that follows it; features and vectors are stored.

    The CLIPs have random weights and towers of one layer: what they choose means nothing.
    """
    from benchmarks.shapes import SHAPES, save_clip

    print("\n| widths of | channel | pairs | choice | cross-fit |")
    print("| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for shape in SHAPES:
            base = save_clip(Path(scratch) / shape.replace("/", "-"), shape, layers=1)
            for channel, count in product(channels, pairs):
                rows = drawn(channel, count, 0)
                told = " | ".join(f"{s:.1f} s" for s in seconds_of(str(base), rows, scratch))
                print(f"| {shape} | {channel.resolve().name} | {len(rows)} | {told} |", flush=True)


def seconds_of(base: str, rows: list, scratch: str) -> tuple[float, float]:
    """Of a choice and of a cross-fit, by one thread."""
    from threadpoolctl import threadpool_limits

    from thumbtune.data.splits import fold_numbers
    from thumbtune.learning.choice import Learner

    trainer = trainer_on(base, rows, Path(scratch), 0)
    trainer.with_negatives(rows, trainer.base.negatives)  # which keeps the vectors of titles
    with threadpool_limits(1):
        learner = Learner(trainer, rows, fold_numbers(rows, 0))
        began = time.process_time()
        learner.choose()
        chosen = time.process_time()
        learner.cross_fit()
        return chosen - began, time.process_time() - chosen


def print_promotions(trials: int) -> None:
    """How often a challenger is promoted that is worse by 0.05 MRR, or equal, by each rule.

    Ranks of both models are drawn among 12 titles with a correlation of 0.7, as those of two
    trainings of a channel have; today's rule is `not_worse` as it was: the interval reaches zero.
    """
    print("\n| videos | challenger | higher | better | not worse, margin 0.05 | the rule before |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for videos in (12, 76, 200):
        for name, worse in (("worse by 0.05", 0.05), ("equal", 0.0)):
            shares = np.mean(list(promoted(videos, worse, trials)), axis=0)
            print(f"| {videos} | {name} | " + " | ".join(f"{s:.0%}" for s in shares) + " |")


def promoted(videos: int, worse: float, trials: int) -> Iterator[list[bool]]:
    """Whether each rule promotes a challenger, trial after trial."""
    from thumbtune.learning.evaluation import Prediction
    from thumbtune.learning.promotion import paired_difference, stands

    shift = shift_for(worse)
    draw = np.random.default_rng(videos)

    def answers(ranks: np.ndarray) -> list[Prediction]:
        told = {"split": "t", "similarity": 0, "top_title": "", "top_similarity": 0}
        return [
            Prediction.model_validate(told | {"video_id": str(video), "rank": int(rank)})
            for video, rank in enumerate(ranks)
        ]

    for _ in range(trials):
        champion, challenger = draw_ranks(draw, videos, shift)
        found = paired_difference("champion", answers(challenger), answers(champion), "MRR")
        yield [
            stands(found, "higher", 0),
            stands(found, "better", 0),
            stands(found, "not_worse", 0.05),
            found.interval[1] >= 0,
        ]


def draw_ranks(
    draw: np.random.Generator, videos: int, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of a champion and of a challenger whose difficulty of each video is shifted."""
    common, own, other = draw.normal(size=(3, videos))
    latent = 0.84 * common, 0.84 * common
    noise = 0.55 * own, 0.55 * other + shift
    rank: Callable[[np.ndarray], np.ndarray] = lambda hard: np.clip(  # noqa: E731
        np.ceil(np.exp(hard + 0.8)), 1, 12
    )
    return rank(latent[0] + noise[0]), rank(latent[1] + noise[1])


def shift_for(worse: float) -> float:
    """By how much each video must be harder for the MRR to be lower by so much."""
    draw = np.random.default_rng(0)
    shifts = np.linspace(0, 0.5, 51)
    lost = []
    for shift in shifts:
        champion, challenger = draw_ranks(draw, 200_000, shift)
        lost.append(float((1 / champion).mean() - (1 / challenger).mean()))
    return 0.0 if worse == 0 else float(np.interp(worse, lost, shifts))


if __name__ == "__main__":
    main()
