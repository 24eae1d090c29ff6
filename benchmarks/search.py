"""How fast is the search? `python benchmarks/search.py`

Searches 1,000, 100,000 and 1,000,000 vectors as `thumbtune.use.indexing` does and as a plain numpy
product does, in the same run: one query at a time, and 100 at once. The vectors are made up, though
like CLIP's: they share a direction, lie in clusters of unequal size, and their variance is in few
dimensions. Half of the queries are pictures of the same kind; the other half are titles, which lie
apart from all pictures (the modality gap, arXiv:2203.02053), where a graph has it harder.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]

PICTURES = (1_000, 100_000, 1_000_000)
QUICK = (500, 5_000)
DIMENSIONS = 512  # of CLIP ViT-B/32
QUERIES = 200  # half pictures, half titles
BATCH = 100
TOP = 10
BLOCK = 50_000
SPREAD = 1 / np.sqrt(np.arange(1, DIMENSIONS + 1, dtype=np.float32))  # deviation by dimension


def embeddings(pictures: int) -> tuple[Embeddings, Embeddings]:
    """Unit vectors of pictures, shape (pictures, dimensions), and of queries."""
    random = np.random.default_rng(0)
    common = 2 * random.standard_normal(DIMENSIONS, dtype=np.float32) * SPREAD
    clusters = random.standard_normal((max(10, pictures // 100), DIMENSIONS), np.float32) * SPREAD
    share = random.dirichlet(np.full(len(clusters), 0.5))

    def draw(count: int) -> Embeddings:
        of = random.choice(len(clusters), count, p=share)
        noise = random.standard_normal((count, DIMENSIONS), np.float32) * SPREAD
        return unit(common + clusters[of] + 0.6 * noise)

    vectors = np.empty((pictures, DIMENSIONS), np.float32)
    for start in range(0, pictures, BLOCK):
        part = vectors[start : start + BLOCK]
        part[:] = draw(len(part))
    gap = random.standard_normal(DIMENSIONS, dtype=np.float32) * SPREAD
    titles = unit(draw(QUERIES // 2) + unit(gap) + 0.3 * unit(draw(QUERIES // 2)))
    return vectors, np.concatenate([draw(QUERIES // 2), titles])


def unit(vectors: Embeddings) -> Embeddings:
    """Vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def plain(vectors: Embeddings, queries: Embeddings) -> None:
    """The whole product, and the ten highest of each line."""
    cosines = queries @ vectors.T
    best = np.argpartition(-cosines, TOP, axis=1)[:, :TOP]
    np.take_along_axis(best, np.argsort(-np.take_along_axis(cosines, best, 1), axis=1), 1)


def latencies(search: Callable[[Embeddings], object], queries: Embeddings) -> str:
    """Median and 95th percentile of one query, and the time of a batch, in milliseconds."""
    seconds = []
    for query in queries:
        started = time.perf_counter()
        search(query[None])
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    search(queries[-BATCH:])
    batch = time.perf_counter() - started
    median, slow = np.percentile(seconds, (50, 95))
    return f"{1e3 * median:.2f} / {1e3 * slow:.2f} | {1e3 * batch:,.0f}"


def main() -> None:
    """Read the arguments, and print the table as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, to see that it runs; the larger one by a graph, which alone would not",
    )
    if parser.parse_args().quick:
        compare(QUICK, graph_from=max(QUICK))
    else:
        compare(PICTURES)


def compare(sizes: Sequence[int], graph_from: int | None = None) -> None:
    """Print a line for each size; a graph is built where `thumbtune.use.indexing` builds one."""
    from thumbtune.use.indexing import (  # --help does not wait for torch
        EXACT_BELOW,
        Vectors,
        with_graph,
    )

    print(
        "| pictures | search | build | memory | one picture, median / p95 | 100 | one title | 100 "
        "| numpy: one query | numpy: 100 | recall@10 of pictures | of titles |"
    )
    print(f"| ---: | --- {'| ---: ' * 10}|")
    for pictures in sizes:
        matrix, queries = embeddings(pictures)
        vectors, recall = Vectors(np.arange(pictures), matrix, None), "1 | 1"
        started = time.perf_counter()
        if pictures >= (graph_from or EXACT_BELOW):
            vectors = with_graph(vectors.numbers, matrix, None)
        build = time.perf_counter() - started
        halves = queries[: QUERIES // 2], queries[QUERIES // 2 :]
        ours = latencies(lambda some: vectors.search(some, TOP), halves[0])  # noqa: B023
        titles = latencies(lambda some: vectors.search(some, TOP, True), halves[1])  # noqa: B023
        numpys = latencies(lambda some: plain(matrix, some), queries)  # noqa: B023
        memory, way = matrix.nbytes, "exact"
        if vectors.graph is not None:
            memory, way = memory + vectors.graph.memory_usage, "graph"
            found = [
                vectors.recall_at_10(*half) for half in zip(halves, (False, True), strict=True)
            ]
            recall = " | ".join(f"{share:.3f}" for share in found)
        print(
            f"| {pictures:,} | {way} | {build:.0f} s | {memory / 1e9:.2f} GB | {ours} "
            f"| {titles} | {numpys} | {recall} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
