"""Run the frozen towers, once for each picture and title, and keep what comes out.

A feature belongs to the frozen weights, the preprocessing and the content, so the untouched model,
the fine-tuned one and every later training share it.
"""

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self
from zipfile import BadZipFile

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from sentence_transformers import SentenceTransformer
from torch import Tensor

from thumbtune.clip.ends import KINDS, Kind
from thumbtune.clip.head import Head
from thumbtune.clip.models import load_model, without_cycle
from thumbtune.clip.quantised import quantised
from thumbtune.clip.rates import note_rate
from thumbtune.clip.towers import (
    Picture,
    Plan,
    Precision,
    Trunk,
    bytes_of,
    plan_of,
    pools_once,
    trunk_of,
)
from thumbtune.clip.trainable import set_trainable
from thumbtune.data.thumbnails import Example, load_image
from thumbtune.progress import progress
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.storage import write_atomically
from thumbtune.store.workspace import Table, Workspace, checksum

BATCH = 32  # inputs that pass through a tower together
AHEAD = 2  # batches decoded while the tower runs
ROWS_PER_FILE = 128  # what a killed run may lose
ENCODED: dict[Kind, str] = {"image": "pictures", "text": "titles"}
CHECKSUM = 32  # bytes, in hex
ONE_TOWER = threading.Lock()
"""A tower has all cores of its process already, and ViT-L/14 in four threads would take 7 GB."""


def image_key(example: Example) -> str:
    """What an example's picture is found by: the hash that its file is named by, and the crop."""
    return picture_key(PurePosixPath(example.image).stem, example.crop)


def picture_key(digest: str, crop: tuple[int, int, int, int] | None) -> str:
    """What a picture's feature is found by: the hash of its bytes, and the crop."""
    return f"{digest} {','.join(map(str, crop)) if crop else 'whole'}"


def title_key(title: str) -> str:
    """What a title's feature is found by; no picture's key begins so."""
    return f"title {title}"


class KeyIndex(NamedTuple):
    """Which features lie in which files of a store."""

    files: list[str]
    hashes: NDArray[np.uint64]
    """Of keys, ascending; of the same key as often as there are files with it."""
    owners: NDArray[np.int64]
    """Rows of `files`."""

    @classmethod
    def of(cls, contents: Mapping[str, NDArray[np.uint64]]) -> Self:
        """From the hashes of each file's keys."""
        hashes = np.concatenate([np.empty(0, np.uint64), *contents.values()])
        owners = np.repeat(np.arange(len(contents)), [len(part) for part in contents.values()])
        order = np.argsort(hashes, kind="stable")
        return cls(list(contents), hashes[order], owners[order])

    @classmethod
    def load(cls, file: Path) -> Self:
        """From a file; nothing is known if it is not there or damaged."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                return cls(stored["files"].tolist(), stored["hashes"], stored["owners"])
        except (OSError, ValueError, KeyError, BadZipFile):
            return cls.of({})

    def save(self, file: Path) -> None:
        """For `load`."""
        data = io.BytesIO()
        np.savez(data, files=np.array(self.files, str), hashes=self.hashes, owners=self.owners)
        write_atomically(file, data.getvalue())

    def files_with(self, keys: Iterable[str]) -> list[str]:
        """The files that have one of the keys, and hardly any other."""
        asked = _hashes(keys)
        starts, ends = (np.searchsorted(self.hashes, asked, side) for side in ("left", "right"))
        found = {int(n) for a, b in zip(starts, ends, strict=True) for n in self.owners[a:b]}
        return [self.files[n] for n in sorted(found)]

    def contents(self) -> dict[str, NDArray[np.uint64]]:
        """File → hashes of its keys."""
        by_file = self.hashes[np.argsort(self.owners, kind="stable")]
        ends = np.bincount(self.owners, minlength=len(self.files)).cumsum()
        return (
            dict(zip(self.files, np.split(by_file, ends[:-1]), strict=True)) if self.files else {}
        )


def _hashes(keys: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in keys], np.uint64)


DAMAGE = (SafetensorError, ValueError, KeyError, TypeError, RecursionError)
"""What reading a damaged file of features raises."""


class FeatureStore:
    """The features of one trunk: safetensors files that are added to and never changed.

    Each file is written at once as a whole under a name of its own, so two runs and a killed run
    leave no half of one. A file that does not match its checksum is removed, and its features are
    made again.

    Thousands of channels may share a trunk. Beside each file lies `.keys` with the hashes of its
    keys, which each machine gathers in an index of its own: so a read opens only the files that
    have what it asks for.

    Args:
        path: of its folder, relative to the workspace.
    """

    def __init__(self, workspace: Workspace, path: str) -> None:
        self.workspace = workspace
        self.path = path
        self.index_file = workspace.root / path / ".index.npz"

    def read(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Those of the asked features that are there, as (tokens, width)."""
        wanted, found = set(keys), dict[str, Tensor]()
        for index in (KeyIndex.load, self._updated_index):  # other runs may have added some
            if missing := wanted - found.keys():
                found |= self._read(index(self.index_file).files_with(missing), missing)
        return found

    def write(self, features: dict[str, Tensor]) -> None:
        """Keep features; they are stored when this returns."""
        names = json.dumps(list(features))
        tensors = {
            "hidden": torch.cat([matrix.cpu() for matrix in features.values()]).contiguous(),
            "ends": torch.tensor([len(matrix) for matrix in features.values()]).cumsum(0),
        }
        metadata = {"keys": names, "checksum": _checksum(names, tensors)}
        file = f"{self.path}/{checksum(names)}"
        self.workspace.write(f"{file}.safetensors", to_bytes(tensors, metadata=metadata))
        hashes = _hashes(features).tobytes()
        sidecar = hashes + checksum(hashes).encode()
        self.workspace.write(_sidecar(f"{file}.safetensors"), sidecar)

    def _read(self, files: Sequence[str], keys: set[str]) -> dict[str, Tensor]:
        found = dict[str, Tensor]()
        self.workspace.places(f"{self.path}/{file}" for file in files)
        for file in files:
            found |= self._read_intact(f"{self.path}/{file}", keys - found.keys())
        return found

    def _read_intact(self, path: str, wanted: set[str]) -> dict[str, Tensor]:
        """The wanted features of one file; none if it is damaged, which removes it."""
        for _ in range(2):
            try:
                return _read_file(self.workspace.place(path), wanted)
            except FileNotFoundError:  # another run found it damaged
                break
            except DAMAGE:
                if not self.workspace.renew(path):
                    self._remove(path)
                    break
        return {}

    def _remove(self, path: str) -> None:
        self.workspace.remove(_sidecar(path))
        self.workspace.remove(path)

    def _updated_index(self, file: Path) -> KeyIndex:
        """The index with what was added or removed since it was saved."""
        index = KeyIndex.load(file)
        names = set(self.workspace.names(self.path))
        there = {name for name in names if name.endswith(".safetensors")}
        if there == set(index.files):
            return index
        contents = {name: keys for name, keys in index.contents().items() if name in there}
        new = sorted(there - contents.keys())
        self.workspace.places(f"{self.path}/{name}" for name in map(_sidecar, new) if name in names)
        for name in new:
            contents[name] = self._hashes_of(name, has_sidecar=_sidecar(name) in names)
        index = KeyIndex.of(contents)
        index.save(file)
        return index

    def _hashes_of(self, file: str, has_sidecar: bool) -> NDArray[np.uint64]:
        """Of the keys of a file; it may be of a run that was killed, or older than sidecars."""
        path = f"{self.path}/{file}"
        if has_sidecar and (known := self._read_sidecar(_sidecar(path))) is not None:
            return known
        try:
            with safe_open(self.workspace.place(path), framework="pt") as stored:
                return _hashes(json.loads(stored.metadata()["keys"]))
        except DAMAGE:
            self._remove(path)
        except FileNotFoundError:  # another run found it damaged
            pass
        return np.empty(0, np.uint64)

    def _read_sidecar(self, path: str) -> NDArray[np.uint64] | None:
        """The hashes of a sidecar; None if it is damaged."""
        try:
            data = self.workspace.place(path).read_bytes()
        except FileNotFoundError:
            return None
        hashes, mark = data[:-CHECKSUM], data[-CHECKSUM:]
        return np.frombuffer(hashes, np.uint64) if checksum(hashes).encode() == mark else None


def _sidecar(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(".keys"))


def _checksum(names: str, tensors: dict[str, Tensor]) -> str:
    return checksum(names, *(bytes_of(tensors[name]) for name in ("hidden", "ends")))


def _read_file(file: Path, wanted: set[str]) -> dict[str, Tensor]:
    """The wanted features of one file; views into the mapped file, not copies.

    Raises:
        `DAMAGE`: so it is.
    """
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
        keys = json.loads(metadata["keys"])
        if wanted.isdisjoint(keys):
            return {}
        tensors = {name: stored.get_tensor(name) for name in ("hidden", "ends")}
    if _checksum(metadata["keys"], tensors) != metadata["checksum"]:
        raise ValueError("checksum")
    starts = [0, *tensors["ends"].tolist()]
    rows = zip(keys, starts, starts[1:], strict=False)
    return {key: tensors["hidden"][a:b] for key, a, b in rows if key in wanted}


def encode(trunk: Trunk, store: FeatureStore, inputs: dict[str, Any]) -> None:
    """Run a frozen tower on what is not stored yet, and store it.

    Args:
        inputs: key → title, or `Picture`.
    """
    keys = list(inputs)
    if trunk.kind == "text":  # titles of like length together: less padding
        keys.sort(key=lambda key: len(inputs[key]))
    batches = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
    unsaved: dict[str, Tensor] = {}
    with progress(f"Encoding {ENCODED[trunk.kind]}", len(keys)) as advance:
        for batch, ready in _prepared(trunk, batches, inputs):
            unsaved |= zip(batch, trunk.run(ready), strict=True)
            advance(len(batch))
            if len(unsaved) >= ROWS_PER_FILE or batch is batches[-1]:
                store.write(unsaved)
                unsaved = {}


def _prepared(
    trunk: Trunk, batches: Sequence[list[str]], inputs: dict[str, Any]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Batches ready for the tower; the next ones are decoded in threads meanwhile."""

    def prepare(batch: list[str]) -> dict[str, Any]:
        values = [inputs[key] for key in batch]
        return trunk.prepare([value(trunk.side) if callable(value) else value for value in values])

    with ThreadPoolExecutor(AHEAD) as pool:
        waiting = [pool.submit(prepare, batch) for batch in batches[:AHEAD]]
        for number, batch in enumerate(batches):
            ready = waiting.pop(0).result()
            if number + AHEAD < len(batches):
                waiting.append(pool.submit(prepare, batches[number + AHEAD]))
            yield batch, ready


class Encoded(BaseModel):
    """What the towers had to do."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    precision: Precision
    encoded: dict[Kind, int] = {}
    """Features that were made now."""
    reused: dict[Kind, int] = {}
    """Features that were stored."""

    @property
    def told(self) -> str:
        """For the report: what was trained on."""
        return self.plan.why + (f" ({self.precision})" if self.plan.stores_features else "")

    @property
    def work(self) -> str:
        """What was done now, in words."""
        made, found = sum(self.encoded.values()), sum(self.reused.values())
        return (
            f"{made} encoded, {found} there" if self.plan.stores_features else "none: trains whole"
        )

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: whoever reads a feature makes it again if it is gone."""
        return True


def head_of(
    workspace: Workspace,
    model: SentenceTransformer,
    examples: Sequence[Example],
    precision: Precision = "float32",
    of: Sequence[Example] = (),
) -> tuple[SentenceTransformer, Encoded]:
    """The trainable end of a model on stored features, or the model itself if it trains whole.

    The head shares its parameters with the model. What is not stored is encoded.

    Args:
        of: all videos of the channel, if not the examples: a tower is quantised by them.
    """
    inputs = inputs_of(workspace, examples)
    calibration = inputs_of(workspace, of)["image"] if of else inputs["image"]
    return head_on(workspace, model, inputs, precision, list(calibration.values()))


def head_on(
    workspace: Workspace,
    model: SentenceTransformer,
    inputs: Mapping[str, dict[str, Any]],
    precision: Precision,
    calibration: Sequence[Picture],
) -> tuple[SentenceTransformer, Encoded]:
    """As `head_of`.

    Args:
        inputs: kind → key → title, or `Picture`.
        calibration: what a tower is quantised by, if that is asked and was not done.
    """
    plan = plan_of(model)
    if not plan.stores_features:
        return model, Encoded(plan=plan, precision=precision)
    features: dict[Kind, dict[str, Tensor]] = {}
    encoded: dict[Kind, int] = {}
    reused: dict[Kind, int] = {}
    was_training = model.training
    model.eval()
    for kind in KINDS:
        trunk = trunk_in(workspace, model, kind, precision, calibration)
        trunk = trunk or trunk_of(model, kind, plan, "float32")
        store = FeatureStore(workspace, f"features/{trunk.fingerprint}")
        features[kind] = store.read(list(inputs[kind]))
        missing = {key: value for key, value in inputs[kind].items() if key not in features[kind]}
        encoded[kind], reused[kind] = len(missing), len(features[kind])
        encode(trunk, store, missing)
        features[kind] |= store.read(list(missing))  # mapped files: memory holds what is in use
    model.train(was_training)
    end = Head(model, plan, features)
    head = without_cycle(SentenceTransformer(modules=[end], device=str(model.device)))
    return head, Encoded(plan=plan, precision=precision, encoded=encoded, reused=reused)


def trunk_in(
    workspace: Workspace,
    model: SentenceTransformer,
    kind: Kind,
    precision: Precision,
    pictures: Sequence[Picture],
) -> Trunk | None:
    """The frozen part of one tower in a precision.

    Args:
        pictures: of the channel, by which a tower is quantised; None is returned if it must be and
            there are none.
    """
    trunk = trunk_of(model, kind, plan_of(model), precision)
    if precision != "int8" or kind == "text" or not pools_once(model, kind):
        return trunk
    return quantised(workspace, trunk, pictures)


def inputs_of(workspace: Workspace, examples: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """Kind → key → title, or `Picture`."""
    titles = [title for example in examples for title in (example.title, example.title_neg)]
    return {
        "image": {
            image_key(example): partial(load_image, workspace, example) for example in examples
        },
        "text": {title_key(title): title for title in titles if title is not None},
    }


def reads_features(model: SentenceTransformer) -> bool:
    """Whether a model is fed with keys of features rather than with pictures and titles."""
    return isinstance(model[0], Head)


def partitions_of(examples: Table, size: int) -> list[tuple[int, int]]:
    """The first row of each partition of a table, and the row after its last."""
    return [(start, min(start + size, examples.rows)) for start in range(0, examples.rows, size)]


def encode_partition(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    precision: Precision,
    start: int,
    stop: int,
) -> Encoded:
    """Encode what the rows from `start` to `stop` are the first to need, and is not stored yet.

    So no two partitions encode the same title, and their counts add up to those of the table.
    """
    with ONE_TOWER:
        loaded = load_model(model, workspace)
        set_trainable(loaded, fragments)
        rows = workspace.read_table(examples, Example)
        before = inputs_of(workspace, rows[:start])
        inputs = {
            kind: {key: value for key, value in values.items() if key not in before[kind]}
            for kind, values in inputs_of(workspace, rows[start:stop]).items()
        }
        pictures = list(inputs_of(workspace, rows)["image"].values())
        started = time.monotonic()
        _, encoded = head_on(workspace, loaded, inputs, precision, pictures)
        if encoded.encoded.get("image", 0) >= BATCH:
            note_rate(workspace, model, (time.monotonic() - started) / encoded.encoded["image"])
        return encoded


def add_up(partitions: Sequence[Encoded]) -> Encoded:
    """What the towers had to do for several partitions of one table, at least one."""
    encoded, reused = Counter[Kind](), Counter[Kind]()
    for part in partitions:
        encoded.update(part.encoded)
        reused.update(part.reused)
    return partitions[0].model_copy(update={"encoded": dict(encoded), "reused": dict(reused)})
