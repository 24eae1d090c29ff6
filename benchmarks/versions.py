"""What does a version of a model take on disk, and to load? `python benchmarks/versions.py`

A CLIP of ViT-L/14's shape with random weights; each version has other projections, as a training
leaves them, and is kept as a run keeps it. Versions in two shards and versions in one file are
loaded in turn, by a new process each, from files that the system has just read. Prints markdown.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MEGABYTE = 1e6

LOAD = """
import sys, time
from sentence_transformers import SentenceTransformer
started = time.monotonic()
SentenceTransformer(sys.argv[1], device="cpu")
print(time.monotonic() - started)
"""


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--loads", type=int, default=7, help="of each kind")
    parser.add_argument("--quick", action="store_true", help="a small CLIP and few versions")
    options = parser.parse_args()
    if options.quick:
        options.versions, options.loads = 3, 1
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Keep versions both ways, and print what they take."""
    from thumbtune.clip.models import find_model, folder_of
    from thumbtune.store.workspace import Workspace

    base = find_model(str(save_base(folder / "clip", small=options.quick)))
    workspace = Workspace.open(folder / "workspace")
    sizes, seconds = [], []
    for number in range(1, options.versions + 1):
        started = time.monotonic()
        kept = keep(base, workspace, number, base)
        seconds.append(time.monotonic() - started)
        sizes.append(bytes_on_disk(workspace.root))
    each = (sizes[-1] - sizes[0]) / (options.versions - 1)
    whole = keep(base, Workspace.open(folder / "whole"), 1, None)
    weights = bytes_on_disk(folder / "whole")
    cut, one = folder_of(kept, workspace), folder / "whole" / whole.path
    loads = {place: [load(place) for _ in range(options.loads)] for place in (cut, one)}
    took = [statistics.median(times) for times in loads.values()]
    print("| versions | on disk | the first | each more | in one file each | kept in | ", end="")
    print("loads in, two shards / one file |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    print(
        f"| {options.versions} | {sizes[-1] / MEGABYTE:,.1f} MB | {sizes[0] / MEGABYTE:,.1f} MB | "
        f"{each / MEGABYTE:.2f} MB | {weights * options.versions / MEGABYTE:,.0f} MB | "
        f"{statistics.median(seconds):.1f} s | {took[0]:.2f} s / {took[1]:.2f} s = "
        f"{took[0] / took[1]:.2f} |"
    )


def save_base(folder: Path, small: bool) -> Path:
    """The bundled CLIP, or one of ViT-L/14's shape: 428 million parameters."""
    from benchmarks.shapes import save_clip
    from thumbtune.sample import MODEL

    return shutil.copytree(MODEL, folder) if small else save_clip(folder, "ViT-L/14")


def keep(base: Any, workspace: Any, number: int, shared_with: Any) -> Any:
    """Train a little, and keep the version.

    Args:
        shared_with: the base, or None to keep it in one file.
    """
    import torch

    from thumbtune.clip.freezing import freeze
    from thumbtune.clip.models import load_model
    from thumbtune.learning.job import save

    model = load_model(base)
    freeze(model, ["projection"])
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.001 * number
    return save(model, workspace, "version", shared_with)


def bytes_on_disk(folder: Path) -> int:
    """Each file once, however many names it has."""
    files = {file.stat().st_ino: file for file in folder.rglob("*") if file.is_file()}
    return sum(file.stat().st_blocks * 512 for file in files.values())


def load(place: Path) -> float:
    """Seconds that a new process takes to load a model, its imports apart."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(place)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
