"""A channel's thumbnails as a map: what the model takes for alike lies together.

Laid out by t-SNE (van der Maaten & Hinton 2008) in scikit-learn, then each on a free cell of a
grid, so that none hides another. Drawn once for an index, and kept in `maps/<channel>.json`.
"""

import hashlib
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, ValidationError

from thumbtune.data.thumbnails import BadThumbnailError, load_cropped
from thumbtune.errors import UserError
from thumbtune.learning.evaluation import Embeddings
from thumbtune.store.workspace import Workspace
from thumbtune.use.indexing import Entry, ThumbnailIndex

Cells = NDArray[np.intp]

MOST = 5000
"""Pictures, the newest ones: t-SNE takes half a minute for so many on two cores."""
LEAST = 8
"""Pictures; fewer are seen at a glance."""
ROOM = 1.6  # cells for each picture
WIDTH = 2400  # pixels, at most
TILE = (24, 128)  # pixels: width of a thumbnail on the map, at least and at most
GAP = 2  # pixels
NEWEST = 12  # pictures that are marked
MARK, GROUND = "#ff5a36", "#10151d"
PER_CLUSTER = 40  # pictures, about
CLUSTERS = (3, 12)
NAMED_BY = 3  # words
TELLING = 1.5
"""By so much more often has a cluster a word than the channel, if it is named by it."""
WORD = r"(?u)\b[^\W\d_]{3,}\b"


class MapError(UserError, ValueError):
    """There are too few pictures for a map."""


class Spot(BaseModel):
    """A thumbnail on the map; its middle, in shares of the width and the height."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    x: float
    y: float


class Cluster(BaseModel):
    """Thumbnails that lie together."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The words that set its titles apart from the others."""
    x: float
    y: float
    ids: list[str]
    """Of its videos, those in its middle first."""


class ChannelMap(BaseModel):
    """All that the page shows."""

    model_config = ConfigDict(frozen=True)

    of: str
    """What it was drawn from."""
    left_out: int
    """Older pictures than the ones that are shown, and those that cannot be read."""
    picture: str
    """A JPEG, in base64."""
    spots: list[Spot]
    clusters: list[Cluster]

    def nearest(self, x: float, y: float) -> Spot:
        """The thumbnail at a place of the picture, in shares of its width and height."""
        return min(self.spots, key=lambda spot: (spot.x - x) ** 2 + (spot.y - y) ** 2)


def map_of(
    workspace: Workspace, name: str, index: ThumbnailIndex, dates: Mapping[str, str]
) -> ChannelMap:
    """The map of an index, from the workspace if it was drawn before.

    Args:
        name: of the channel's registry.
        dates: id of a video → when it was published.

    Raises:
        MapError: there are too few pictures.
    """
    if len(index) < LEAST:
        raise MapError(f"There are {len(index)} thumbnails; a map begins with {LEAST}.")
    of = hashlib.sha256(b"\n".join([b"1", *index.lines])).hexdigest()
    place = f"maps/{name}.json"
    with suppress(OSError, ValidationError):
        kept = ChannelMap.model_validate_json(workspace.read(place))
        if kept.of == of:
            return kept
    drawn = draw_map(of, index, dates)
    workspace.write(place, drawn.model_dump_json().encode())
    return drawn


def draw_map(of: str, index: ThumbnailIndex, dates: Mapping[str, str]) -> ChannelMap:
    """Lay out, name and draw; see `map_of`."""
    by_date = sorted(range(len(index)), key=lambda row: dates.get(index.entries[row].id, ""))
    rows = by_date[-MOST:]
    entries = [index.entries[row] for row in rows]
    cells, (columns, lines) = on_a_grid(layout(index.vectors.matrix[rows]))
    new = {entry.id for entry in entries[-NEWEST:] if dates.get(entry.id)}
    picture, shown = _drawn(index.workspace, entries, cells, columns, lines, new)
    places = (cells[shown] + 0.5) / (columns, lines)
    entries = [entries[row] for row in shown]
    return ChannelMap(
        of=of,
        left_out=len(index) - len(entries),
        picture=b64encode(picture).decode(),
        spots=[
            Spot(id=entry.id, title=entry.title, x=x, y=y)
            for entry, (x, y) in zip(entries, places.tolist(), strict=True)
        ],
        clusters=_described(entries, places, clusters_of(places)),
    )


def layout(vectors: Embeddings) -> NDArray[np.float32]:
    """A place in the plane for each vector, shape (pictures, 2)."""
    from sklearn.decomposition import PCA  # seconds
    from sklearn.manifold import TSNE

    axes = PCA(min(50, *vectors.shape), random_state=0).fit_transform(vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    places: NDArray[np.float32] = TSNE(
        init="pca", perplexity=perplexity, random_state=0
    ).fit_transform(axes)
    return places


def on_a_grid(places: NDArray[np.float32]) -> tuple[Cells, tuple[int, int]]:
    """A cell of its own for each place, near to it.

    Returns:
        Column and row, shape (pictures, 2), and how many columns and rows there are.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    size = max(2, int(np.ceil(np.sqrt(len(places) * ROOM))))
    wanted = (places - low) / np.maximum(high - low, 1e-9) * (size - 1)
    middle = np.linalg.norm(wanted - (size - 1) / 2, axis=1)
    taken: set[tuple[int, int]] = set()
    cells = np.zeros((len(places), 2), np.intp)
    for row in np.argsort(middle).tolist():  # the outer ones make room
        cell = _free(wanted[row], taken, size)
        taken.add(cell)
        cells[row] = cell
    return cells, (size, size)


def _free(wanted: NDArray[np.float32], taken: set[tuple[int, int]], size: int) -> tuple[int, int]:
    """The free cell that is nearest to a place."""
    column, row = np.round(wanted).astype(int).tolist()
    for reach in count():
        ring = [
            (x, y)
            for x in range(max(0, column - reach), min(size, column + reach + 1))
            for y in range(max(0, row - reach), min(size, row + reach + 1))
            if max(abs(x - column), abs(y - row)) == reach and (x, y) not in taken
        ]
        if ring:
            return min(ring, key=lambda c: (c[0] - wanted[0]) ** 2 + (c[1] - wanted[1]) ** 2)
    raise AssertionError("there are more cells than pictures")


def _drawn(
    workspace: Workspace,
    entries: Sequence[Entry],
    cells: Cells,
    columns: int,
    lines: int,
    new: set[str],
) -> tuple[bytes, list[int]]:
    """The map as a JPEG, and which of the pictures could be read."""
    width = int(np.clip(WIDTH // columns, *TILE))
    height = width * 9 // 16
    canvas = Image.new("RGB", (columns * width, lines * height), GROUND)
    pen = ImageDraw.Draw(canvas)
    shown = []
    for row, (entry, (column, line)) in enumerate(zip(entries, cells.tolist(), strict=True)):
        try:
            tile = load_cropped(entry.file(workspace), entry.crop, least=height)
        except (OSError, BadThumbnailError):
            continue
        left, top = column * width, line * height
        canvas.paste(tile.resize((width - GAP, height - GAP)), (left, top))
        if entry.id in new:
            pen.rectangle(
                (left, top, left + width - GAP, top + height - GAP),
                outline=MARK,
                width=max(2, width // 20),
            )
        shown.append(row)
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=80)
    return file.getvalue(), shown


def clusters_of(places: NDArray[np.float64]) -> list[int]:
    """The cluster of each place."""
    from sklearn.cluster import KMeans

    many = int(np.clip(len(places) // PER_CLUSTER, *CLUSTERS))
    found: list[int] = KMeans(many, n_init=4, random_state=0).fit_predict(places).tolist()
    return found


def names_of(titles: Sequence[str], clusters: Sequence[int]) -> dict[int, str]:
    """Cluster → the words by which its titles are told from all titles.

    Those that add most to the divergence (Kullback & Leibler 1951) of its words from the channel's.
    Where no word returns, as in languages without spaces, a cluster has no name.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    own, numbers = np.array(clusters), sorted(set(clusters))
    vectorizer = CountVectorizer(token_pattern=WORD, binary=True)
    try:
        has = vectorizer.fit_transform(titles).toarray().astype(bool)
    except ValueError:  # no title has a word
        return dict.fromkeys(numbers, "")
    words, everywhere = vectorizer.get_feature_names_out(), has.mean(axis=0)
    names = {}
    for number in numbers:
        counts = has[own == number].sum(axis=0)
        here = counts / (own == number).sum()
        telling = (counts > 1) & (here > TELLING * everywhere)
        weights = np.where(telling, here * np.log(np.maximum(here, 1e-9) / everywhere), 0)
        best = [place for place in np.argsort(-weights)[:NAMED_BY] if weights[place] > 0]
        names[number] = ", ".join(words[best])
    return names


def _described(
    entries: Sequence[Entry], places: NDArray[np.float64], clusters: Sequence[int]
) -> list[Cluster]:
    names = names_of([entry.title for entry in entries], clusters)
    found = []
    for number, name in names.items():
        rows = [row for row, own in enumerate(clusters) if own == number]
        middle = np.median(places[rows], axis=0)
        rows.sort(key=lambda row: float(((places[row] - middle) ** 2).sum()))
        ids, called = [entries[row].id for row in rows], name or entries[rows[0]].title
        found.append(Cluster(name=called, x=middle[0], y=middle[1], ids=ids))
    return sorted(found, key=lambda cluster: -len(cluster.ids))
