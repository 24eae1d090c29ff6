"""Several thumbnails against several titles: which of them belong together."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thumbtune.learning.evaluation import Embeddings
from thumbtune.text.escaping import for_spreadsheet
from thumbtune.use.matching import Matcher
from thumbtune.use.verdicts import FAR, in_words


class Cell(NamedTuple):
    """One title and one thumbnail."""

    cosine: float
    percentile: float
    """Among the channel's own pairs, 0 to 100."""
    best_of_row: bool
    """No thumbnail fits this title better."""
    best_of_column: bool
    """No title fits this thumbnail better."""
    ahead: bool
    """Of all pairs none fits better, or too little to tell them apart."""

    @property
    def fits(self) -> bool:
        """Whether they belong together at all."""
        return self.percentile >= FAR

    @property
    def words(self) -> str:
        """What it says."""
        return in_words(self.percentile)


class Row(NamedTuple):
    """A title, and how well it fits each of the thumbnails."""

    title: str
    cells: list[Cell]


class Comparison(NamedTuple):
    """All titles against all thumbnails, the titles with the best fit first."""

    rows: list[Row]
    says: str
    """What comes of it, in a sentence."""


def compare(
    matcher: Matcher, images: Embeddings, titles: Sequence[str], vectors: Embeddings
) -> Comparison:
    """Hold every title against every thumbnail.

    Args:
        images: unit vectors, shape (thumbnails, dimensions).
        vectors: of the titles, shape (titles, dimensions).
    """
    cosines = vectors @ images.T
    order = np.argsort(-cosines.max(axis=1), kind="stable")
    rows = [
        Row(titles[row], [_cell(matcher, cosines, row, column) for column in range(len(images))])
        for row in order.tolist()
    ]
    return Comparison(rows, _says(rows))


def _cell(matcher: Matcher, cosines: Embeddings, row: int, column: int) -> Cell:
    cosine, best = float(cosines[row, column]), float(cosines.max())
    return Cell(
        cosine,
        matcher.percentile(cosine),
        best_of_row=cosine == cosines[row].max(),
        best_of_column=cosine == cosines[:, column].max(),
        ahead=cosine == best or best - cosine < matcher.close,
    )


def _says(rows: Sequence[Row]) -> str:
    pairs = [(row, n, cell) for row in rows for n, cell in enumerate(row.cells, 1)]
    row, number, best = max(pairs, key=lambda pair: pair[2].cosine)
    if not best.fits:
        return "None of these titles describes any of these pictures."
    ahead = sum(cell.ahead for *_, cell in pairs)
    if ahead > 1:
        return f"Too close to call: {ahead} pairs are in front, marked with a star."
    return f"Best together: thumbnail {number} and “{row.title}”. It {best.words}."


def as_csv(comparison: Comparison, names: Sequence[str], delimiter: str = ",") -> str:
    """A table for a spreadsheet: a line for each pair."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["title", "thumbnail", "percentile", "cosine", "verdict"])
    for row in comparison.rows:
        for name, cell in zip(names, row.cells, strict=True):
            figures = [f"{cell.percentile:.1f}", f"{cell.cosine:.4f}", cell.words]
            writer.writerow([for_spreadsheet(row.title), for_spreadsheet(name), *figures])
    return file.getvalue()
