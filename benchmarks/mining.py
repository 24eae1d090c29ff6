"""What do negatives cost? `python benchmarks/mining.py`

Mines the article's negatives for 1,000, 10,000 and 100,000 titles, and prints the time beside that
of one blocked product of the same similarity matrix, and the peak memory, each in a process of its
own. Where the article's own loop can run, its negatives are compared.
"""

import resource
import sys
import time
from multiprocessing import get_context

import numpy as np

from tasks.negatives import BLOCK, Embeddings, Rows, least_similar

TITLES = (1_000, 10_000, 100_000)
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
    for start in range(0, len(vectors), BLOCK):
        vectors[start : start + BLOCK] @ vectors.T


def measure(job: str, titles: int) -> tuple[float, float, Rows | None]:
    """Seconds, peak memory of this process in GB, and the negatives."""
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
    """Print the table as markdown."""
    print("| titles | one product | negatives | ratio | peak memory | as the plain loop |")
    print("| ---: | ---: | ---: | ---: | ---: | --- |")
    for titles in TITLES:
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:

            def run(job: str) -> tuple[float, float, Rows | None]:
                return pool.apply(measure, (job, titles))  # noqa: B023 - used up in this round

            bare, _, _ = run("product")
            seconds, memory, negatives = run("negatives")
            same = "too large"
            if titles <= PLAIN_UNTIL:
                expected = run("plain")[2]
                done = expected >= 0
                same = "identical" if (expected[done] == negatives[done]).all() else "DIFFERENT"
        print(
            f"| {titles:,} | {bare:.2f} s | {seconds:.2f} s | {seconds / bare:.1f} "
            f"| {memory:.2f} GB | {same} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
