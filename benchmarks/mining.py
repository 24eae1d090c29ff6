"""What do negatives cost? `python benchmarks/mining.py`

Mines the article's negatives for 1,000, 10,000 and 100,000 titles, and prints the time beside that
of one blocked product of the same similarity matrix, and the peak memory, each in a process of its
own. Where the article's own loop can run, its negatives are compared.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
Rows = NDArray[np.intp]

TITLES = (1_000, 10_000, 100_000)
QUICK = (200, 1_000)
DIMENSIONS = 768  # of all-mpnet-base-v2
PLAIN_UNTIL = 10_000  # titles; the whole matrix takes 400 MB


def embeddings(titles: int) -> Embeddings:
    """Random unit vectors, shape (titles, dimensions)."""
    vectors = np.random.default_rng(0).standard_normal((titles, DIMENSIONS), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain(vectors: Embeddings) -> Rows:
    """The article's loop over the whole matrix; what is taken is marked rather than looked up.

    No row may take itself: the article's loop allowed it.
    """
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, np.inf)
    negatives = np.full(len(vectors), -1)
    for row in range(len(vectors)):
        best = similarities[row].argmin()
        if similarities[row, best] < np.inf:
            negatives[row] = best
            similarities[:, best] = np.inf
    return negatives


def product(vectors: Embeddings) -> None:
    """The same similarities, block by block, with nothing done to them."""
    from thumbtune.data.negatives import BLOCK

    for start in range(0, len(vectors), BLOCK):
        vectors[start : start + BLOCK] @ vectors.T


def measure(job: str, titles: int) -> tuple[float, float, Rows | None]:
    """Seconds, peak memory of this process in GB, and the negatives."""
    from thumbtune.data.negatives import (
        least_similar,  # here, so that --help does not wait for torch
    )

    vectors = embeddings(titles)
    started = time.perf_counter()
    if job == "product":
        negatives = product(vectors)
    elif job == "plain":
        negatives = plain(vectors)
    else:
        negatives = least_similar(vectors, np.arange(titles))
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, negatives


def main() -> None:
    """Read the arguments, and print the table as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes in one process, to see that it runs"
    )
    if parser.parse_args().quick:
        compare(QUICK, jobs_per_process=None)
    else:
        compare(TITLES, jobs_per_process=1)


def compare(sizes: Sequence[int], jobs_per_process: int | None) -> None:
    """Print a line for each size; None is for all jobs in one process, which then loads once."""
    print("| titles | one product | negatives | ratio | peak memory | as the plain loop |")
    print("| ---: | ---: | ---: | ---: | ---: | --- |")
    with get_context("spawn").Pool(1, maxtasksperchild=jobs_per_process) as pool:
        for titles in sizes:
            bare, _, _ = pool.apply(measure, ("product", titles))
            seconds, memory, negatives = pool.apply(measure, ("negatives", titles))
            same = "too large"
            if titles <= PLAIN_UNTIL:
                expected = pool.apply(measure, ("plain", titles))[2]
                done = expected >= 0
                same = "identical" if (expected[done] == negatives[done]).all() else "DIFFERENT"
            print(
                f"| {titles:,} | {bare:.2f} s | {seconds:.2f} s | {seconds / bare:.1f} "
                f"| {memory:.2f} GB | {same} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
