"""What stands between this machine and a training: a line each, with what mends it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import requests
from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict

from thumbtune.channel.preflight import check_workspace
from thumbtune.channel.quota import spent_today
from thumbtune.channel.secrets import MissingSecretError
from thumbtune.errors import UserError
from thumbtune.parameters import TrainParameters, VideosParameters
from thumbtune.store.disk import in_plain_words
from thumbtune.store.storage import is_url
from thumbtune.store.workspace import Workspace, mirrors
from thumbtune.tasks.secret_blocks import read_secret_early

State = Literal["ok", "note", "fault"]
TIMEOUT = 10  # seconds
NEEDED = 4e9  # bytes: ViT-L/14 (1.7 GB) downloaded, its first version, and thumbnails
KEY = "YOUTUBE_API_KEY"
MADE_AT = "make one at https://console.cloud.google.com/apis/credentials (free)"
DAILY_QUOTA: int = VideosParameters.model_fields["daily_quota"].default


class Check(BaseModel):
    """One line of the doctor."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: State
    """`fault`: a training of a YouTube channel fails; `note`: something is slower, or left out."""
    told: str
    """What was found and, if it is not well, what mends it."""


def examine(workspace: str, model: str) -> Iterator[Check]:
    """Look at one thing after the other.

    Args:
        workspace: where runs keep their things.
        model: the one that is to be trained.
    """
    checks: dict[str, Callable[[], tuple[State, str]]] = {
        "versions": _versions,
        "key": lambda: _key(workspace),
        "youtube": lambda: _reaches("https://i.ytimg.com", "thumbnails cannot be fetched"),
        "hub": lambda: _hub(model),
        "model": lambda: _model(model),
        "workspace": lambda: _workspace(workspace),
        "processor": _processor,
        "prefect": _prefect,
    }
    for name, check in checks.items():
        try:
            state, told = check()
        except (UserError, OSError) as error:
            state, told = "fault", in_plain_words(error)
        yield Check(name=name, state=state, told=told)


def _versions() -> tuple[State, str]:
    """Each library is of a version that this one works with."""
    wrong = [told for line in requires("thumbtune") or [] if (told := _unfit(Requirement(line)))]
    if wrong:
        return "fault", f"{', '.join(wrong)}. Run `pip install --upgrade thumbtune`"
    names = ("thumbtune", "prefect", "torch", "sentence-transformers")
    return "ok", ", ".join(f"{name} {version(name)}" for name in names)


def _unfit(wanted: Requirement) -> str:
    """What is wrong with a library that is wanted here; "" if nothing is."""
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        return ""
    try:
        there = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(there, prereleases=True)
    return "" if fits else f"{wanted.name} is {there}, which breaks: wanted {wanted.specifier}"


def _key(location: str) -> tuple[State, str]:
    """The key is there, and YouTube takes it: a call of one quota unit."""
    from thumbtune.channel.sources.youtube.api import RetryableYouTubeError, request_api

    try:
        key = read_secret_early(KEY)
    except MissingSecretError:
        return "fault", f"{KEY} is not set; {MADE_AT}, then `export {KEY}=…`"
    if key is None:
        return "note", f"{KEY} may be in a Secret block of Prefect, which a run looks up"
    workspace = Workspace.find(location)
    with tempfile.TemporaryDirectory() as scratch:
        place = workspace if workspace.id else Workspace.open(scratch)
        ask = {"part": "id", "forHandle": "@youtube"}
        try:
            request_api(place, "channels", dict(ask), DAILY_QUOTA)
        except RetryableYouTubeError as error:
            return "fault", str(error)
        spent = spent_today(place, key, datetime.now(UTC))
    left = f"{DAILY_QUOTA - spent:,} of {DAILY_QUOTA:,} quota units are left today"
    return "ok", f"YouTube takes {KEY}; {left}, as counted in {location}"


def _reaches(address: str, otherwise: str) -> tuple[State, str]:
    try:
        requests.head(address, timeout=TIMEOUT)
    except requests.RequestException as error:
        kind = type(error).__name__
        return "fault", f"{address} does not answer ({kind}): {otherwise}. Check the network"
    return "ok", f"{address} answers"


def _hub(model: str) -> tuple[State, str]:
    """It is asked for models that are not here yet."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "note", "HF_HUB_OFFLINE is set: only models that are on this machine can be used"
    state, told = _reaches(constants.ENDPOINT, "models cannot be downloaded")
    return ("note" if state == "fault" and _is_here(model) else state), told


def _model(model: str) -> tuple[State, str]:
    if _is_here(model):
        return "ok", f"{model} is on this machine"
    return "note", f"{model} is not on this machine yet: the first run downloads it"


def _is_here(model: str) -> bool:
    from thumbtune.clip.models import find_cached
    from thumbtune.names.model_name import folder_named

    return model == "sample" or folder_named(model, "model") is not None or find_cached(model)


def _workspace(location: str) -> tuple[State, str]:
    """It can be written to, and has room."""
    check_workspace(location)
    place = mirrors() if is_url(location) else Path(location).expanduser().absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free
    told = f"{location} can be written to; {free / 1e9:.0f} GB are free there"
    if free < NEEDED:
        return "fault", f"{told}, and a first training takes {NEEDED / 1e9:.0f}. Make room"
    return "ok", told


def _processor() -> tuple[State, str]:
    """What encodes the pictures."""
    import torch

    from thumbtune.clip import quantised
    from thumbtune.clip.towers import gains_by_bfloat16

    if torch.cuda.is_available():
        return "ok", f"{torch.cuda.get_device_name()} encodes the pictures"
    cores = f"{os.cpu_count()} cores and no GPU"
    if quantised.gains_by_int8() and not quantised.is_installed():
        extra = "`pip install 'thumbtune[fast]'` makes large channels faster"
        return "note", f"{cores}; this processor gains by 8-bit integers: {extra}"
    faster = [
        name
        for name, gains in (
            ("int8", quantised.gains_by_int8()),
            ("bfloat16", gains_by_bfloat16(torch.device("cpu"))),
        )
        if gains
    ]
    return "ok", f"{cores}; faster than float32 here: {' and '.join(faster) or 'nothing'}"


def _prefect() -> tuple[State, str]:
    """The server that runs report to, if one is set up."""
    from prefect.settings import get_current_settings

    if not (api := get_current_settings().api.url):
        return "ok", "no server is set up: each run starts one of its own for as long as it lasts"
    try:
        there = requests.get(f"{api}/admin/version", timeout=TIMEOUT).json()
    except (requests.RequestException, ValueError):
        return "fault", (
            f"no Prefect server answers at {api}. Start it with `prefect server start`, or unset "
            "PREFECT_API_URL"
        )
    own = version("prefect")
    if there != own:
        return "note", f"the server at {api} is Prefect {there}, and {own} is installed here"
    return "ok", f"the server at {api} answers, Prefect {there}"


DEFAULT_MODEL: str = TrainParameters.model_fields["model"].default
