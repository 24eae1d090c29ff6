"""What does a GPU give? `python benchmarks/gpu.py`

One command for a machine with one, by itself: a CLIP of a real one's shape with random weights.

- encode: pictures a second through the image tower, decoded before, in float32, bfloat16 and
  float16, and the peak of the GPU's memory;
- train: seconds of an epoch of 1,000 pairs on stored features, and of the whole model's steps;
- two processes: the sample channel trained by one and by two, with NCCL, and by how much their
  weights differ. It wants two GPUs.

Prints markdown. `--quick` does the first two with one layer on whatever is there, to see that they
run.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAMES = ("float32", "bfloat16", "float16")


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256, help="pictures at once")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.batches = 4, 1
    sys.path.insert(0, str(ROOT))
    from benchmarks.shapes import SHAPES

    device = device_or_exit(options.quick)
    with tempfile.TemporaryDirectory() as scratch:
        print("| shape | precision | pictures a second | GPU memory |")
        print("| --- | --- | ---: | ---: |")
        trainings = []
        for shape in list(SHAPES)[: 1 if options.quick else None]:
            model = load(Path(scratch), shape, 1 if options.quick else None, device)
            for name in NAMES:
                print(f"| {shape} | {name} | {encoded(model, name, options)} |", flush=True)
            trainings.append(trained(model, shape, options))
        print("", *trainings, sep="\n")
        print(two_processes(Path(scratch), options.quick))


def device_or_exit(quick: bool) -> str:
    """The GPU; with `--quick` the processor will do."""
    import torch

    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
        return "cuda"
    if quick:
        return "cpu"
    sys.exit("No GPU is here: torch.cuda.is_available() is False.")


def load(scratch: Path, shape: str, layers: int | None, device: str) -> Any:
    """A CLIP of a shape on the device."""
    from sentence_transformers import SentenceTransformer

    from benchmarks.shapes import save_clip

    folder = save_clip(scratch / shape.replace("/", "-"), shape, layers=layers)
    return SentenceTransformer(str(folder), device=device).eval()


def encoded(model: Any, name: str, options: argparse.Namespace) -> str:
    """Pictures a second and memory, as cells of the table."""
    import torch

    pixels = torch.randn(options.batch, 3, 224, 224, device=model.device)
    on_gpu = model.device.type == "cuda"

    def run() -> None:
        kind = getattr(torch, name)
        enabled = name != "float32"
        with torch.no_grad(), torch.autocast(model.device.type, kind, enabled=enabled):
            model[0].model.get_image_features(pixel_values=pixels)
        if on_gpu:
            torch.cuda.synchronize()

    run()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(options.batches):
        run()
    rate = options.batch * options.batches / (time.perf_counter() - started)
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if on_gpu else "-"
    return f"{rate:,.0f} | {memory}"


def trained(model: Any, shape: str, options: argparse.Namespace) -> str:
    """Seconds of an epoch on stored features and of the same number of whole steps."""
    from benchmarks.training_jobs import article, draw_channel, ours
    from thumbtune.clip.freezing import freeze
    from thumbtune.store.workspace import Workspace

    pairs = 40 if options.quick else 1000
    freeze(model, ["projection"])
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        draw_channel(workspace, pairs)
        seconds = []
        for job in (ours, ours, article):  # the first encodes
            started = time.perf_counter()
            job(workspace, model, pairs, 1)
            seconds.append(time.perf_counter() - started)
    return (
        f"{shape}, {pairs:,} pairs, one epoch with its measures: {seconds[0]:.1f} s with encoding, "
        f"{seconds[1]:.1f} s on stored features, {seconds[2]:.1f} s whole"
    )


def two_processes(scratch: Path, quick: bool) -> str:
    """Whether two processes end with the weights of one, and how long each takes."""
    import torch

    if quick or torch.cuda.device_count() < 2:
        return "\nTwo processes were not tried: NCCL wants a GPU for each of them."
    took, models = [], []
    for processes in (1, 2):
        workspace = scratch / f"processes-{processes}"
        command = [sys.executable, str(ROOT / "flows" / "train_flow.py"), "--source", "sample"]
        command += ["--model", "sample", "--workspace", str(workspace), "--training.recipe"]
        command += ["given", "--evaluation.method", "holdout", "--negatives.method", "random"]
        command += ["--training.processes", str(processes), "--training.epochs", "1"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        took.append(time.perf_counter() - started)
        models.append(projections(workspace))
    apart = max(float((models[0][name] - models[1][name]).abs().max()) for name in models[0])
    return (
        f"\nOne process {took[0]:.0f} s, two {took[1]:.0f} s; "
        f"their weights differ by {apart:.1g} at most."
    )


def projections(workspace: Path) -> dict[str, Any]:
    """What the only version of a workspace has trained."""
    from sentence_transformers import SentenceTransformer

    [folder] = (workspace / "models").glob("*/model")
    weights = SentenceTransformer(str(folder), device="cpu").state_dict()
    return {name: weight for name, weight in weights.items() if "projection" in name}


if __name__ == "__main__":
    main()
