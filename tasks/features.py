"""Step: run the frozen towers, once for each picture and title, and keep what comes out.

A feature belongs to the frozen weights, the preprocessing and the content, so the untouched model,
the fine-tuned one and every later training share it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from sentence_transformers import SentenceTransformer
from torch import Tensor
from tqdm import tqdm

from tasks.caching import content_key
from tasks.freezing import freeze
from tasks.models import ModelReference, load_model
from tasks.parameters import FeaturesParameters
from tasks.thumbnails import Example, load_image
from tasks.towers import (
    KINDS,
    Head,
    Kind,
    Plan,
    Precision,
    Trunk,
    bytes_of,
    gains_by_bfloat16,
    plan_of,
)
from tasks.workspace import Table, Workspace, checksum, write_atomically

BATCH = 32  # inputs that pass through a tower together
AHEAD = 2  # batches decoded while the tower runs
ROWS_PER_FILE = 128  # what a killed run may lose
TRIAL = 64  # videos on which bfloat16 is held against float32


def image_key(example: Example) -> str:
    """What an example's picture is found by: the hash that its file is named by, and the crop."""
    return picture_key(PurePosixPath(example.image).stem, example.crop)


def picture_key(digest: str, crop: tuple[int, int, int, int] | None) -> str:
    """What a picture's feature is found by: the hash of its bytes, and the crop."""
    return f"{digest} {','.join(map(str, crop)) if crop else 'whole'}"


def title_key(title: str) -> str:
    """What a title's feature is found by; no picture's key begins so."""
    return f"title {title}"


class FeatureStore:
    """The features of one trunk: safetensors files that are added to and never changed.

    Each file is written at once as a whole under a name of its own, so two runs and a killed run
    leave no half of one. A file that does not match its checksum is removed, and its features are
    made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Those of the asked features that are there, as (tokens, width)."""
        wanted, found = set(keys), dict[str, Tensor]()
        for file in sorted(self.folder.glob("*.safetensors")):
            if wanted <= found.keys():
                break
            try:
                content = _read_file(file, wanted - found.keys())
            except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
                file.unlink(missing_ok=True)
            except FileNotFoundError:  # another run found it damaged
                pass
            else:
                found |= content
        return found

    def write(self, features: dict[str, Tensor]) -> None:
        """Keep features; they are on disk when this returns."""
        names = json.dumps(list(features))
        tensors = {
            "hidden": torch.cat([matrix.cpu() for matrix in features.values()]).contiguous(),
            "ends": torch.tensor([len(matrix) for matrix in features.values()]).cumsum(0),
        }
        metadata = {"keys": names, "checksum": _checksum(names, tensors)}
        file = self.folder / f"{checksum(names)}.safetensors"
        write_atomically(file, to_bytes(tensors, metadata=metadata))


def _checksum(names: str, tensors: dict[str, Tensor]) -> str:
    return checksum(names, *(bytes_of(tensors[name]) for name in ("hidden", "ends")))


def _read_file(file: Path, wanted: set[str]) -> dict[str, Tensor]:
    """The wanted features of one file; views into the mapped file, not copies.

    Raises:
        SafetensorError, ValueError, KeyError, TypeError: the file is damaged.
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
        inputs: key → title, or a function that decodes the picture.
    """
    keys = list(inputs)
    if trunk.kind == "text":  # titles of like length together: less padding
        keys.sort(key=lambda key: len(inputs[key]))
    batches = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
    unsaved: dict[str, Tensor] = {}
    with tqdm(total=len(keys), desc=f"Encoding {trunk.kind}s", disable=not keys) as progress:
        for batch, ready in _prepared(trunk, batches, inputs):
            unsaved |= zip(batch, trunk.run(ready), strict=True)
            progress.update(len(batch))
            if len(unsaved) >= ROWS_PER_FILE or batch is batches[-1]:
                store.write(unsaved)
                unsaved = {}


def _prepared(
    trunk: Trunk, batches: Sequence[list[str]], inputs: dict[str, Any]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Batches ready for the tower; the next ones are decoded in threads meanwhile."""

    def prepare(batch: list[str]) -> dict[str, Any]:
        values = [inputs[key] for key in batch]
        return trunk.prepare([value() if callable(value) else value for value in values])

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
    why_precision: str = ""
    """If another one was asked for."""
    encoded: dict[Kind, int] = {}
    """Features that were made now."""
    reused: dict[Kind, int] = {}
    """Features that were stored."""

    @property
    def told(self) -> str:
        """For the report: what was trained on."""
        return self.plan.why + (f" ({self.precision})" if self.plan.depths else "")

    @property
    def work(self) -> str:
        """What was done now, in words."""
        made, found = sum(self.encoded.values()), sum(self.reused.values())
        return f"{made} encoded, {found} there" if self.plan.depths else "none: trains whole"

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: whoever reads a feature makes it again if it is gone."""
        return True


def head_of(
    workspace: Workspace,
    model: SentenceTransformer,
    examples: Sequence[Example],
    precision: Precision = "float32",
) -> tuple[SentenceTransformer, Encoded]:
    """The trainable end of a model on stored features, or the model itself if it trains whole.

    The head shares its parameters with the model. What is not stored is encoded.
    """
    inputs = {"image": _pictures(workspace, examples), "text": _titles(examples)}
    return head_on(workspace, model, inputs, precision)


def head_on(
    workspace: Workspace,
    model: SentenceTransformer,
    inputs: Mapping[str, dict[str, Any]],
    precision: Precision,
) -> tuple[SentenceTransformer, Encoded]:
    """As `head_of`.

    Args:
        inputs: kind → key → title, or a function that decodes the picture.
    """
    plan = plan_of(model)
    if plan.depths is None:
        return model, Encoded(plan=plan, precision=precision)
    features: dict[Kind, dict[str, Tensor]] = {}
    encoded: dict[Kind, int] = {}
    reused: dict[Kind, int] = {}
    was_training = model.training
    model.eval()
    for kind in KINDS:
        trunk = Trunk(model, kind, plan.depths[kind], precision)
        store = FeatureStore(workspace.root / "features" / trunk.fingerprint)
        features[kind] = store.read(list(inputs[kind]))
        missing = {key: value for key, value in inputs[kind].items() if key not in features[kind]}
        encoded[kind], reused[kind] = len(missing), len(features[kind])
        encode(trunk, store, missing)
        features[kind] |= store.read(list(missing))  # mapped files: memory holds what is in use
    model.train(was_training)
    clip: Any = model[0]
    head = SentenceTransformer(
        modules=[Head(clip.model, plan.depths, features)], device=str(model.device)
    )
    return head, Encoded(plan=plan, precision=precision, encoded=encoded, reused=reused)


def _pictures(workspace: Workspace, examples: Sequence[Example]) -> dict[str, Any]:
    return {
        image_key(example): (lambda example=example: load_image(workspace, example))
        for example in examples
    }


def _titles(examples: Sequence[Example]) -> dict[str, Any]:
    titles = [title for example in examples for title in (example.title, example.title_neg)]
    return {title_key(title): title for title in titles if title is not None}


def reads_features(model: SentenceTransformer) -> bool:
    """Whether a model is fed with keys of features rather than with pictures and titles."""
    return isinstance(model[0], Head)


def choose_precision(
    workspace: Workspace,
    model: SentenceTransformer,
    examples: Sequence[Example],
    wanted: Precision,
) -> tuple[Precision, str]:
    """The precision to encode in, and why if it is not the wanted one.

    bfloat16 must make the hardware faster, and on `TRIAL` validation videos the untouched model
    must have the same Recall@k with it as with float32, both ways.
    """
    if wanted == "float32" or plan_of(model).depths is None:
        return "float32", ""
    if not gains_by_bfloat16(model.device):
        return "float32", "this hardware is no faster with bfloat16"
    trial = [example for example in examples if example.split == "valid"][:TRIAL]
    exact, fast = (
        _recall(head_of(workspace, model, trial, precision)[0], trial)
        for precision in ("float32", "bfloat16")
    )
    if (exact != fast).any():
        return "float32", f"bfloat16 changes Recall@k on {len(trial)} validation videos"
    return "bfloat16", ""


def _recall(head: SentenceTransformer, examples: Sequence[Example]) -> NDArray[np.float64]:
    """Recall@1, @5 and @10 of pictures to titles, then of titles to pictures."""
    images = head.encode([image_key(example) for example in examples], normalize_embeddings=True)
    titles = head.encode([title_key(row.title) for row in examples], normalize_embeddings=True)
    similarities = images @ titles.T
    own = similarities.diagonal()
    ahead = [(similarities > own[:, None]).sum(axis=1), (similarities > own).sum(axis=0)]
    return np.array([(rank < k).mean() for rank in ahead for k in (1, 5, 10)])


@task(
    name="encode-features",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=content_key(version=1),
)
def encode_features(
    workspace: Workspace,
    model: ModelReference,
    examples: Table,
    fragments: Sequence[str],
    parameters: FeaturesParameters,
) -> Encoded:
    """Encode all pictures and titles of a table of `Example` that are not stored yet."""
    logger = get_run_logger()
    loaded = load_model(model)
    freeze(loaded, fragments)
    rows = workspace.read_table(examples, Example)
    precision, why = choose_precision(workspace, loaded, rows, parameters.precision)
    if why:
        logger.warning("features.precision: float32 is used, since %s", why)
    _, encoded = head_of(workspace, loaded, rows, precision)
    logger.info("Training on %s", encoded.told)
    for kind in encoded.encoded:
        logger.info(
            "Features of %ss: %d encoded, %d from the store",
            kind,
            encoded.encoded[kind],
            encoded.reused[kind],
        )
    return encoded.model_copy(update={"why_precision": why})
