"""Which precision the frozen towers run in: what is faster here, if a trial finds it as good.

bfloat16 wants hardware that multiplies it; int8 the extra `fast`, and a quantising that takes as
long as a few hundred pictures.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sentence_transformers import SentenceTransformer

from thumbtune.clip import quantised
from thumbtune.clip.features import (
    FeatureStore,
    head_of,
    image_key,
    inputs_of,
    title_key,
    trunk_in,
)
from thumbtune.clip.towers import Precision, gains_by_bfloat16, plan_of, pools_once
from thumbtune.data.thumbnails import Example
from thumbtune.parameters import WantedPrecision
from thumbtune.store.workspace import Workspace

TRIAL_SHARE = 0.1
TRIAL_BOUNDS = (64, 256)
"""A tenth of the videos, between these, are run in float32 too; the standard error of a Recall@k of
256 is 0.03 at most."""
NOISE = 0.08
"""That a precision may add to embeddings, of their spread. Of bfloat16 it is ~0.01, of int8 0.06
with a small CLIP. Drawn noise of 0.1 moved MRR by 0.001 on three channels, 0.2 by 0.002."""
WORST = 0.25
"""The same, of a single video."""
LOST = 0.02
"""By so much a Recall@k of the trial may be lower."""
RANKS = (1, 5, 10)

PAYS = 300
"""Pictures to encode from which on `auto` looks for something faster. Quantising took 13 s with
ViT-B/32, the time of 240 pictures, and 30 s with eight layers of ViT-L/14, that of 80."""
TIMED = 16
"""Pictures by which precisions are timed, half a batch."""


FASTER: tuple[Precision, ...] = ("int8", "bfloat16")


class ChosenPrecision(BaseModel):
    """The precision that the towers are run in."""

    model_config = ConfigDict(frozen=True)

    precision: Precision
    told: str = ""
    """What the trial showed, or why it is not what was asked for; "" if neither is to be told."""

    def is_whole(self, workspace: Workspace) -> bool:
        """Always: it points to no file."""
        return True


def precision_for(
    workspace: Workspace,
    model: SentenceTransformer,
    examples: Sequence[Example],
    wanted: WantedPrecision,
) -> ChosenPrecision:
    """The precision to encode in.

    Args:
        wanted: `auto`: int8 or bfloat16 where this hardware gains by it, there are `PAYS` pictures
            to encode, and a trial allows it; once most features are stored in one, that stays.
    """
    if not may_be_faster(wanted, len(examples)) or not plan_of(model).stores_features:
        return ChosenPrecision(precision="float32")
    if wanted != "auto":
        why = _unable(model, wanted)
        if why:
            return ChosenPrecision(precision="float32", told=f"float32 is used, since {why}")
        return _tried(workspace, model, examples, wanted)
    stays = _stored(workspace, model, examples)
    if stays:
        return ChosenPrecision(precision=stays)
    return _fastest(workspace, model, examples)


def may_be_faster(wanted: WantedPrecision, examples: int) -> bool:
    """Whether another precision than float32 is to be looked at; without a model being loaded."""
    if wanted != "auto":
        return wanted != "float32"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return examples >= PAYS and (quantised.is_installed() or gains_by_bfloat16(device))


def _unable(model: SentenceTransformer, precision: Precision) -> str:
    """Why a precision cannot be had; "" if it can."""
    if precision == "bfloat16":
        able = gains_by_bfloat16(model.device)
        return "" if able else "this hardware is no faster with bfloat16"
    if not quantised.is_installed():
        return "int8 needs OpenVINO and NNCF: run `pip install 'thumbtune[fast]'`"
    if model.device.type != "cpu":
        return "int8 is for processors, and the model is on a GPU"
    if not pools_once(model, "image"):
        return "int8 needs an image tower that is frozen as a whole"
    return ""


def _stored(
    workspace: Workspace, model: SentenceTransformer, examples: Sequence[Example]
) -> Precision | None:
    """The precision in which most pictures are encoded already."""
    keys = list(dict.fromkeys(map(image_key, examples)))
    able: list[Precision] = [each for each in FASTER if not _unable(model, each)]
    for precision in ("float32", *able):
        trunk = trunk_in(workspace, model, "image", precision, [])
        if trunk is not None:
            store = FeatureStore(workspace, f"features/{trunk.fingerprint}")
            if len(store.read(keys)) > len(keys) / 2:
                return precision
    return None


def _fastest(
    workspace: Workspace, model: SentenceTransformer, examples: Sequence[Example]
) -> ChosenPrecision:
    """What encodes a few pictures in the least time, if it passes the trial."""
    exact = ChosenPrecision(precision="float32")
    gains: dict[Precision, bool] = {
        "int8": quantised.gains_by_int8(),
        "bfloat16": gains_by_bfloat16(model.device),
    }
    able = [each for each, does in gains.items() if does and not _unable(model, each)]
    if len(set(map(image_key, examples))) < PAYS or not able:
        return exact
    seconds = {each: _seconds(workspace, model, examples, each) for each in ("float32", *able)}
    fast = min(seconds, key=seconds.__getitem__)
    return exact if fast == "float32" else _tried(workspace, model, examples, fast)


def _seconds(
    workspace: Workspace,
    model: SentenceTransformer,
    examples: Sequence[Example],
    precision: Precision,
) -> float:
    """That a batch of pictures takes in a tower, the second time; quantising is not in it."""
    pictures = list(inputs_of(workspace, examples)["image"].values())
    trunk = trunk_in(workspace, model, "image", precision, pictures)
    assert trunk is not None  # there are pictures to calibrate by
    ready = trunk.prepare([picture(trunk.side) for picture in pictures[:TIMED]])
    trunk.run(dict(ready))
    started = time.monotonic()
    trunk.run(dict(ready))
    return time.monotonic() - started


def _tried(
    workspace: Workspace,
    model: SentenceTransformer,
    examples: Sequence[Example],
    precision: Precision,
) -> ChosenPrecision:
    """A precision, if with it the untouched model embeds videos nearly where it does in float32,
    and finds their titles as well."""
    trial = _spread(examples)
    exact, fast = (
        _embedded(head_of(workspace, model, trial, each, of=examples)[0], trial)
        for each in ("float32", precision)
    )
    mean, worst = np.max([_noise(*pair) for pair in zip(exact, fast, strict=True)], axis=0)
    before, after = _recalls(*exact), _recalls(*fast)
    told = (
        f"{precision} moves embeddings by {mean:.1%} of their spread, and by {worst:.1%} at worst, "
        f"in a trial with {len(trial)} videos; Recall@1, 5 and 10 there: {_told(before)} in "
        f"float32, {_told(after)} with it"
    )
    if mean <= NOISE and worst <= WORST and (after >= before - LOST).all():  # NaN is none of these
        return ChosenPrecision(precision=precision, told=told)
    return ChosenPrecision(
        precision="float32",
        told=f"float32 is used, since {told}; {NOISE:.0%}, {WORST:.0%} and a loss of {LOST} are "
        "allowed",
    )


def _spread(examples: Sequence[Example]) -> Sequence[Example]:
    """The videos of the trial, evenly spread."""
    least, most = TRIAL_BOUNDS
    count = min(len(examples), max(least, min(most, round(TRIAL_SHARE * len(examples)))))
    return [examples[row] for row in np.linspace(0, len(examples) - 1, count).astype(int)]


def _embedded(head: SentenceTransformer, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    """Unit vectors of the pictures and of the titles, each shape (videos, dimensions)."""
    keys = [image_key(row) for row in examples], [title_key(row.title) for row in examples]
    return [head.encode(each, normalize_embeddings=True) for each in keys]


def _noise(exact: NDArray[np.float32], fast: NDArray[np.float32]) -> tuple[float, float]:
    """By how much of their spread vectors are moved, on average and at most."""
    spread = np.linalg.norm(exact - exact.mean(axis=0), axis=1).mean()
    moved = np.linalg.norm(fast - exact, axis=1) / max(spread, 1e-6)
    return float(moved.mean()), float(moved.max())


def _recalls(images: NDArray[np.float32], titles: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of pictures whose own title is among the first k, for each of `RANKS`."""
    scores = images @ titles.T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return np.array([(rank < k).mean() for k in RANKS])


def _told(recalls: NDArray[np.float64]) -> str:
    return ", ".join(f"{recall:.2f}" for recall in recalls)
