"""How fast do the frozen towers run, in each precision? `python benchmarks/encoding.py`

Pictures of 1280x720 pixels as JPEG, as YouTube has them, and titles, each through a CLIP of a real
one's shape with random weights. The floor is one float32 pass of PyTorch over each picture and
title, pictures decoded whole, one batch after the other; float32, bfloat16 and int8 are what a run
does, with what is read, decoded, stored and, in int8, quantised.

Each run is a process of its own, and the rounds take turns. Seconds are medians, beyond loading the
model; memory is the peak of the process. Prints markdown.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parent.parent
WAYS = ("floor", "float32", "bfloat16", "int8")


def main() -> None:
    """Read the arguments, draw the pictures, run the rounds and print the table."""
    sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed; spawned processes see it too
    from benchmarks.shapes import SHAPES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--layers", type=int, help="of each tower, if not as many as it has")
    parser.add_argument(
        "--quick", action="store_true", help="few pairs, a CLIP of one layer, to see that it runs"
    )
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.rounds, options.layers, options.shapes = 40, 1, 1, ["ViT-B/32"]
    print("| shape | pairs | way | seconds | of the floor | pictures a second | memory |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for shape in options.shapes:
            print_rows(Path(scratch), shape, options)


def print_rows(scratch: Path, shape: str, options: argparse.Namespace) -> None:
    """A line for each way; each job in a process of its own, so that memory is its own."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        pool.apply(prepare, (scratch, shape, options.pairs, options.layers))
        results: dict[str, list[tuple[float, float]]] = {way: [] for way in ways()}
        for _ in range(options.rounds):
            for way in results:
                results[way].append(pool.apply(measure, (scratch, way, options.pairs)))
                print(f"{shape}, {way}: {results[way][-1][0]:.1f} s", file=sys.stderr)
    seconds = {way: statistics.median(took for took, _ in results[way]) for way in results}
    for way in results:
        memory = statistics.median(peak for _, peak in results[way])
        print(
            f"| {shape} | {options.pairs:,} | {way} | {seconds[way]:.1f} | "
            f"{seconds[way] / seconds['floor']:.2f} | {options.pairs / seconds[way]:.1f} | "
            f"{memory:.1f} GB |",
            flush=True,
        )


def ways() -> list[str]:
    """Without bfloat16 where the hardware does not multiply it, and it takes ten times as long."""
    import torch

    from thumbtune.clip.towers import gains_by_bfloat16

    able = gains_by_bfloat16(torch.device("cpu"))
    return [way for way in WAYS if way != "bfloat16" or able]


def prepare(scratch: Path, shape: str, pairs: int, layers: int | None) -> None:
    """Draw the pictures, once, and save the CLIP."""
    from benchmarks.shapes import save_clip
    from benchmarks.training_jobs import draw_channel
    from thumbtune.store.workspace import Workspace

    shutil.rmtree(scratch / "clip", ignore_errors=True)
    save_clip(scratch / "clip", shape, layers=layers)
    if not (scratch / "workspace").exists():
        draw_channel(Workspace.open(scratch / "workspace"), pairs, (1280, 720))


def measure(scratch: Path, way: str, pairs: int) -> tuple[float, float]:
    """Seconds of one way in an empty store, and the peak memory of this process in GB."""
    from benchmarks import training_jobs  # here, so that --help does not wait for torch

    for made in ("features", "quantised"):
        shutil.rmtree(scratch / "workspace" / made, ignore_errors=True)
    return training_jobs.measure(way, scratch / "workspace", scratch / "clip", pairs, 0)


if __name__ == "__main__":
    main()
