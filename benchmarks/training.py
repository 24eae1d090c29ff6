"""How fast is training on stored features? `python benchmarks/training.py`

Four jobs side by side, on a CLIP of ViT-B/32's shape with random weights and drawn pictures:

- article: its recipe as written; whole model in every step, evaluators of train and valid before,
  after each epoch and after, of test at the end;
- cold: ours in an empty workspace, the same measures before and after;
- warm: ours when all videos but five have their features stored;
- floor: each picture and each title once through its tower, and nothing else.

Each run is a process of its own. Times are medians of the rounds, beyond loading the model; memory
is the peak of the process. Prints markdown.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

ROOT = Path(__file__).parent.parent
JOBS = ("article", "cold", "warm", "floor")
NEW = 5
"""Videos of a warm run whose features are not stored."""


def main() -> None:
    """Read the arguments, draw the data, run the rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[76, 1000])
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 20])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few pairs, a CLIP of one layer, and one process, to see that it runs",
    )
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.epochs, options.rounds = [40], [1], 1
    sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed; spawned processes see it too
    print_table(options)


def print_table(options: argparse.Namespace) -> None:
    """A line for each number of pairs and of epochs."""
    jobs_per_process = None if options.quick else 1
    print(
        "| pairs | epochs | article | cold | warm | floor | article / cold | cold / floor |", end=""
    )
    print(" cold / warm | memory: article, cold, warm, floor |")
    print("| ---: " * 9 + "| --- |")
    with (
        tempfile.TemporaryDirectory() as scratch,
        get_context("spawn").Pool(1, maxtasksperchild=jobs_per_process) as pool,
    ):
        folder = Path(scratch)
        pool.apply(prepare, (folder, max(options.pairs), 1 if options.quick else None))
        for pairs in options.pairs:
            for epochs in options.epochs:
                rounds = [measure_round(pool, folder, pairs, epochs) for _ in range(options.rounds)]
                print(row(pairs, epochs, rounds), flush=True)


def prepare(folder: Path, pairs: int, layers: int | None) -> None:
    """Draw a channel and save a CLIP, as ViT-B/32 but for the number of layers if that is given."""
    from benchmarks.shapes import save_clip
    from benchmarks.training_jobs import draw_channel
    from thumbtune.store.workspace import Workspace

    save_clip(folder / "clip", "ViT-B/32", layers=layers)
    draw_channel(Workspace.open(folder / "workspace"), pairs + NEW)


def measure(job: str, folder: Path, pairs: int, epochs: int) -> tuple[float, float]:
    """Seconds of a job beyond loading the model, and the peak memory of this process in GB."""
    from benchmarks import training_jobs  # here, so that --help does not wait for torch

    return training_jobs.measure(job, folder / "workspace", folder / "clip", pairs, epochs)


def measure_round(
    pool: Pool, folder: Path, pairs: int, epochs: int
) -> dict[str, tuple[float, float]]:
    """Each job once."""
    results = {}
    shutil.rmtree(folder / "workspace" / "features", ignore_errors=True)
    for job in ("floor", "cold", "warm", "article"):  # warm follows cold, whose features it finds
        count = pairs + NEW if job == "warm" else pairs
        results[job] = pool.apply(measure, (job, folder, count, epochs))
        print(f"{pairs} pairs, {epochs} epochs, {job}: {results[job][0]:.2f} s", file=sys.stderr)
    return results


def row(pairs: int, epochs: int, rounds: list[dict[str, tuple[float, float]]]) -> str:
    """One line of the table, by the medians of the rounds."""
    seconds = {job: statistics.median(r[job][0] for r in rounds) for job in JOBS}
    memory = {job: statistics.median(r[job][1] for r in rounds) for job in JOBS}
    return (
        f"| {pairs:,} | {epochs} | "
        + " | ".join(f"{seconds[job]:.2f} s" for job in JOBS)
        + f" | {seconds['article'] / seconds['cold']:.1f} "
        f"| {seconds['cold'] / seconds['floor']:.2f} "
        f"| {seconds['cold'] / seconds['warm']:.1f} "
        f"| {', '.join(f'{memory[job]:.1f}' for job in JOBS)} GB |"
    )


if __name__ == "__main__":
    main()
