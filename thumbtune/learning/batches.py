"""Batches of an epoch: every row once, and as many of them as the Trainer was told."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped]
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.util.distributed import get_world_size

from thumbtune.text.titles import same_title

ATTEMPTS = 10  # at dividing a shuffle of the rows into as few batches as the first one
LABEL = "label"
"""Column of a dataset for several processes: 1, and 0 in its last row, which fills shares up."""


Columns = dict[str, list[Any]]
"""What a dataset has, by its columns' names."""


def with_filler(columns: Columns) -> Columns:
    """The columns with one more row, which `EqualShares` fills batches with."""
    labels = [1] * len(columns["anchor"]) + [0]
    return {**{name: [*rows, rows[0]] for name, rows in columns.items()}, LABEL: labels}


class DistinctBatches(DefaultBatchSampler):
    """Batches in which no title or thumbnail occurs twice, be it as positive or as negative.

    A row's negative may be another row's positive; in one batch the loss would push away what it
    should pull near. Titles are compared as readers see them, pictures by their names: none is
    decoded.

    Every row is drawn once an epoch, and every epoch has the same number of batches. (The library's
    NoDuplicatesBatchSampler draws more batches than it tells, and the Trainer leaves them out.) The
    rows are spread over the batches evenly, since a small one has little to compare.

    Args:
        batch_size: rows of a batch at most.
    """

    def __init__(self, columns: Columns, batch_size: int, **options: Any) -> None:
        super().__init__(columns["anchor"], batch_size=batch_size, **options)
        self.values = _values_of_rows(columns)
        rows_of = Counter(value for values in self.values for value in values)
        self.rivals = np.array([sum(rows_of[value] for value in row) for row in self.values])
        fewest = -(-len(self.values) // batch_size)
        self.first = self._divide(np.arange(len(self.values)), fewest)

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[list[int]]:
        if self.generator:
            self.generator.manual_seed(self.seed + self.epoch)
        tried = (self._divide(self._shuffle(len(self.values)), len(self)) for _ in range(ATTEMPTS))
        batches = next((batches for batches in tried if len(batches) == len(self)), self.first)
        yield from (batches[place] for place in self._shuffle(len(batches)))

    def _shuffle(self, count: int) -> NDArray[np.intp]:
        return torch.randperm(count, generator=self.generator).numpy()

    def _divide(self, order: NDArray[np.intp], number: int) -> list[list[int]]:
        """Put each row into the smallest batch that may have it; if none may, into one more.

        Those with the most rivals come first, as in greedy colouring (Welsh & Powell 1967).

        Args:
            number: of batches to begin with.
        """
        batches: list[list[int]] = [[] for _ in range(number)]
        sizes = np.zeros(len(order) + 1, np.intp)
        having = defaultdict[str, list[int]](list)
        for row in order[np.argsort(-self.rivals[order], kind="stable")].tolist():
            load = sizes[: len(batches)].copy()
            for value in self.values[row]:
                load[having[value]] = self.batch_size
            if load.min() < self.batch_size:
                place = int(load.argmin())
            else:
                place = len(batches)
                batches.append([])
            batches[place].append(row)
            sizes[place] += 1
            for value in self.values[row]:
                having[value].append(place)
        return batches


def _values_of_rows(columns: Columns) -> list[frozenset[str]]:
    """What no other row of a batch may have."""
    titles = [columns[name] for name in ("positive", "negative") if name in columns]
    pictures = [f"picture {anchor}" for anchor in columns["anchor"]]
    alike = [[f"title {same_title(title)}" for title in column] for column in titles]
    return [frozenset(row) for row in zip(pictures, *alike, strict=True)]


class EqualShares(DefaultBatchSampler):
    """Batches as one process would draw them, each cut into equal shares for several processes.

    The shares of a batch follow each other, and accelerate deals them out in turn. What lacks for
    equal shares is the filler, which `GatheredRankingLoss` leaves out again.

    Args:
        whole: draws the same batches in every process.
        filler: the row that fills up.
    """

    sampler: Any
    batch_size: Any

    def __init__(self, whole: DefaultBatchSampler, processes: int, filler: int) -> None:
        self.sampler = whole  # where accelerate looks for `set_epoch`
        self.processes = processes
        self.filler = filler
        self.batch_size = None  # accelerate takes shares of any size
        self.drop_last = False

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.sampler:
            size = -(-len(batch) // self.processes)
            filled = batch + [self.filler] * (size * self.processes - len(batch))
            yield from (filled[place : place + size] for place in range(0, len(filled), size))

    def __len__(self) -> int:
        return len(self.sampler) * self.processes


def no_duplicates_sampler(
    dataset: Dataset | Columns, batch_size: int, **options: Any
) -> DefaultBatchSampler:
    """`DistinctBatches`, for this process its share of them.

    Args:
        dataset: for several processes, `with_filler`.
        batch_size: rows of a batch that one process has. Of several processes this holds for their
            rows together, since the loss compares them all.
    """
    columns, processes = _without_filler(dataset), get_world_size()
    options["drop_last"] = False
    whole = DistinctBatches(columns, batch_size * processes, **options)
    return _shared(whole, len(columns["anchor"]))


def plain_sampler(
    dataset: Dataset | Columns, batch_size: int, **options: Any
) -> DefaultBatchSampler:
    """The Trainer's own batches: the rows of a seeded shuffle, one after the other.

    Args:
        dataset, batch_size: as in `no_duplicates_sampler`.
    """
    rows, processes = _without_filler(dataset)["anchor"], get_world_size()
    options["drop_last"] = False
    shuffled = SeedableRandomSampler(
        rows, generator=options["generator"], data_seed=options["seed"]
    )
    whole = DefaultBatchSampler(shuffled, batch_size=batch_size * processes, **options)
    return _shared(whole, len(rows))


def _without_filler(dataset: Dataset | Columns) -> Columns:
    columns: Columns = dataset if isinstance(dataset, dict) else dataset.with_format(None).to_dict()
    rows = len(columns["anchor"]) - (LABEL in columns)
    return {name: column[:rows] for name, column in columns.items()}


def _shared(whole: DefaultBatchSampler, filler: int) -> DefaultBatchSampler:
    processes = get_world_size()
    return whole if processes == 1 else EqualShares(whole, processes, filler)


SAMPLERS = {"no_duplicates": no_duplicates_sampler, "plain": plain_sampler}
"""By `training.batches`."""
