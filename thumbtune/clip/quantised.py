"""A picture tower in 8-bit integers, by OpenVINO and NNCF: the extra `fast`.

What is quantised is kept in the workspace, found by the frozen weights, so a base model is
quantised once. Its features are stored by the quantised file itself, since another one, calibrated
on other pictures, gives others.
"""

import contextlib
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from thumbtune.clip.towers import Picture, Trunk, side_of
from thumbtune.store.workspace import Workspace, checksum

if TYPE_CHECKING:
    import openvino

CALIBRATION = 32
"""Pictures whose activations are looked at; with so many the outputs of ViT-B/32's shape have a
cosine of 0.9999 with those of float32."""
BATCH = 4

FILES = ("model.xml", "model.bin", "whole.json")
"""The last has the checksums of the others, and is written when they are there."""


def is_installed() -> bool:
    """Whether the extra `fast` is."""
    return find_spec("openvino") is not None and find_spec("nncf") is not None


class Quantised(Trunk):
    """A frozen picture tower in int8, on all cores of this machine.

    Args:
        exact: the same in float32; it prepares the pictures.
        xml, weights: as OpenVINO saves a model.
    """

    def __init__(self, exact: Trunk, xml: bytes, weights: bytes) -> None:
        self.exact, self.xml, self.weights = exact, xml, weights
        self.kind, self.device, self.module = exact.kind, exact.device, exact.module
        self.precision = "int8"

    @property
    def fingerprint(self) -> str:
        """Of the quantised model, and of how pictures are prepared for it."""
        side = f"reduced to {side_of(self.exact)}"
        return checksum("int8", side, self.exact.fingerprint, self.xml, self.weights)

    @cached_property
    def compiled(self) -> "openvino.CompiledModel":
        """Takes a second or two."""
        core = _openvino().Core()
        return core.compile_model(core.read_model(self.xml, self.weights), "CPU")

    def pooled(self, ready: dict[str, Any]) -> Tensor:
        """Of pictures."""
        return torch.from_numpy(self.compiled(ready["pixel_values"].cpu().numpy())[0].copy())


def quantised(workspace: Workspace, exact: Trunk, pictures: Sequence[Picture]) -> Quantised | None:
    """The quantised tower that the workspace keeps, or a new one; None if there is neither one nor
    a picture to calibrate it by.

    Args:
        exact: the tower in float32, frozen as a whole.
        pictures: functions that decode the channel's pictures.
    """
    place = f"quantised/{exact.fingerprint}"
    if (kept := _kept(workspace, place)) is not None:
        return Quantised(exact, *kept)
    if not pictures:
        return None
    step = max(1, len(pictures) // CALIBRATION)
    chosen = [picture(side_of(exact)) for picture in pictures[::step][:CALIBRATION]]
    files = _quantise(exact, chosen)
    marks = json.dumps([checksum(file) for file in files]).encode()
    for name, content in zip(FILES, (*files, marks), strict=True):
        workspace.write(f"{place}/{name}", content)
    return Quantised(exact, *files)


def _kept(workspace: Workspace, place: str) -> tuple[bytes, bytes] | None:
    """The files of a quantised model; None if one is not there or not whole."""
    try:
        xml, weights, marks = (workspace.read(f"{place}/{name}") for name in FILES)
        whole = json.loads(marks) == [checksum(xml), checksum(weights)]
    except (FileNotFoundError, ValueError):
        return None
    return (xml, weights) if whole else None


def _quantise(exact: Trunk, pictures: Sequence[Any]) -> tuple[bytes, bytes]:
    """Calibrated on pictures: OpenVINO's description of the model, and its weights."""
    openvino = _openvino()
    import nncf

    nncf.set_log_level(logging.ERROR)
    pixels = exact.prepare(pictures)["pixel_values"]
    unseen = contextlib.redirect_stdout(io.StringIO())  # NNCF draws bars there
    with unseen, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of Python conditions that tracing takes as they are
        converted = openvino.convert_model(
            _OnPixels(exact), example_input=pixels[:2], input=[-1, *pixels.shape[1:]]
        )
        batches = [batch.numpy() for batch in pixels.split(BATCH)]
        quick = nncf.quantize(
            converted,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
    return _serialised(quick)


def _serialised(model: Any) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        xml = Path(scratch) / FILES[0]
        _openvino().save_model(model, xml)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()


class _OnPixels(nn.Module):
    """A trunk as the module of one tensor that is traced."""

    def __init__(self, exact: Trunk) -> None:
        super().__init__()
        self.exact = exact
        self.model = exact.module

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.exact.pooled({"pixel_values": pixel_values, "modality": "image"})


def _openvino() -> Any:
    """OpenVINO, without its telemetry: that would report its use to Intel unasked, at its import.

    It runs without the package that sends it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def gains_by_int8() -> bool:
    """Whether this processor multiplies 8-bit integers faster than float32 numbers.

    Without such instructions OpenVINO's int8 takes about 0.8 x as long, which no channel's
    quantising is worth.
    """
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm"))
