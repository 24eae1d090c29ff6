"""See cheaply whether a channel has enough new videos to train again."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from thumbtune.channel.identity import spelled_alike
from thumbtune.channel.registry import Registry
from thumbtune.channel.source import Request, source_of
from thumbtune.channel.sources.youtube.api import request_api
from thumbtune.channel.videos import end_listing, list_videos, listed_as, listing_begins
from thumbtune.errors import UserError, problems_of
from thumbtune.names.sources import source_names
from thumbtune.parameters import TrainParameters, VideosParameters, WatchParameters
from thumbtune.store.workspace import Table, Workspace

logger = logging.getLogger(__name__)

DAY = timedelta(days=1)
EVENT = "thumbtune.videos.new"
"""What the trigger of the train deployment in prefect.yaml waits for."""


class ChannelsFileError(UserError, ValueError):
    """The file of channels cannot be used; the message names the entry and the mend."""


def read_channels(file: Path) -> list[TrainParameters]:
    """The channels of a YAML file: `channels`, a list of train parameters, and `defaults`.

    A stage such as `training` in a channel replaces fields of the default, not the whole stage.

    Raises:
        ChannelsFileError: the file is missing, no YAML, or an entry is wrong.
    """
    content = _read_yaml(file)
    if not isinstance(content, dict) or not isinstance(content.get("channels"), list):
        raise ChannelsFileError(
            f"channels: {file} needs a list `channels:`, such as\nchannels:\n  - channel: '@handle'"
        )
    defaults = content.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise ChannelsFileError(f"channels: {file}: `defaults` must be train parameters.")
    if unknown := set(content) - {"channels", "defaults"}:
        raise ChannelsFileError(
            f"channels: {file} has {', '.join(sorted(map(str, unknown)))}; it may have `channels` "
            "and `defaults`."
        )
    found = [
        _channel(f"channels: {file}, channel {place}", defaults, entry)
        for place, entry in enumerate(content["channels"], 1)
    ]
    _check_that_all_differ(file, found)
    return found


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.expanduser().read_bytes())
    except yaml.MarkedYAMLError as error:
        raise ChannelsFileError(f"channels: {file} {_yaml_problem(error)}") from None
    except (OSError, yaml.YAMLError, ValueError, RecursionError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise ChannelsFileError(f"channels: {file} cannot be read as YAML: {told}") from None


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """What is wrong with a YAML file, in one sentence with its line."""
    problem, mark = error.problem or "", error.problem_mark or error.context_mark
    line = f", line {mark.line + 1}" if mark else ""
    if "'@' that cannot start" in problem:
        return f"has an @ without quotes{line}. Put the handle into quotes: - '@handle'."
    if "'\\t' that cannot start" in problem:
        return f"has a tab{line}. Indent with spaces."
    told = ", ".join(filter(None, (error.context, problem)))
    return f"cannot be read as YAML: {told}{line}."


def _check_that_all_differ(file: Path, found: list[TrainParameters]) -> None:
    """Two spellings of one channel are one, so far as that can be told without the network."""
    for place, channel in enumerate(found):
        for other in found[:place]:
            if not spelled_alike(channel.source, channel.channel, other.source, other.channel):
                continue
            called, before = str(channel.channel), str(other.channel)
            twice = f"{called} twice" if called == before else f"{before} and {called}, one channel"
            raise ChannelsFileError(f"channels: {file} has {twice}. Remove one.")


def _merged(defaults: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in entry.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def _channel(place: str, defaults: dict[str, Any], entry: Any) -> TrainParameters:
    """The parameters of one entry: a channel, or a mapping with one."""
    values = _merged(defaults, entry if isinstance(entry, dict) else {"channel": entry})
    channel = values.get("channel")
    if entry is None:
        raise ChannelsFileError(f"{place} is empty. Write a channel there, or delete its line.")
    if not isinstance(channel, str | None):
        what = type(channel).__name__ if isinstance(channel, list | dict | set) else repr(channel)
        raise ChannelsFileError(
            f"{place}: channel is {what:.60} and no text. Write it as text, in quotes."
        )
    if channel is None and _needs_channel(values.get("source")):
        raise ChannelsFileError(f"{place}: channel is missing. Add one: channel: '@handle'.")
    try:
        return TrainParameters.model_validate(values)
    except ValidationError as error:
        field, message = problems_of(error)[0]
        raise ChannelsFileError(f"{place}: {f'{field}: ' if field else ''}{message}") from None


def _needs_channel(source: Any) -> bool:
    """Whether an entry without a channel lacks one; a wrong source is told elsewhere."""
    known = source in source_names()
    return bool(source_of(source).channel_is) if known else True


EARLY = timedelta(minutes=90)
"""So much of a time may lack, a tenth at most: a schedule's runs do not begin to the second, and a
day in spring has 23 hours. A watch that came a moment too early would wait for the next one."""


def nearly(time: timedelta) -> timedelta:
    """So much of a time is enough for a watch that comes a little early."""
    return time - min(EARLY, time / 10)


class News(BaseModel):
    """What a channel has that its newest model has not seen."""

    model_config = ConfigDict(frozen=True)

    new: int
    """Long-form videos."""
    train: bool
    why: str
    videos: Table | None = None
    """Rows of `Video`: the new ones, if there are any."""


class Memory(BaseModel):
    """What the watch knows from the last times."""

    dismissed: list[str] = []
    """Videos of the feed that are shorts. What is upcoming or live now may yet become of use."""
    longest_short: float | None = None
    """The limit, in seconds, by which they are."""
    waiting: list[str] = []
    """New videos that no training has taken yet, and premieres and streams that are not over;
    others may have pushed them out of the feed."""
    announced: str = ""
    """Hash of the new videos for which a training was started last."""
    announced_at: AwareDatetime | None = None

    def shorts(self, limit: float) -> set[str]:
        """Videos of the feed that are known to be no longer than a limit in seconds."""
        return set(self.dismissed) if self.longest_short == limit else set()

    @classmethod
    def read(cls, workspace: Workspace, path: str) -> "Memory":
        """From a file; nothing is known if it is not there or damaged."""
        try:
            return cls.model_validate_json(workspace.read(path))
        except (OSError, ValidationError):
            return cls()


def judge_news(
    new: Sequence[str],
    trained_at: datetime | None,
    memory: Memory,
    options: WatchParameters,
    now: datetime,
) -> tuple[bool, str]:
    """Whether to train again, and why or why not.

    Args:
        new: ids of the new long-form videos.
        trained_at: when the last training was, None if there is no version.
    """
    if memory.announced_at and memory.announced == _mark(new):
        again = memory.announced_at + nearly(timedelta(hours=options.retry_hours))
        if now < again:
            return False, f"training was started for these {len(new)} videos; again at {again:%c}"
    if trained_at is None:
        return True, f"{len(new)} videos and no model yet"
    if not new:
        return False, "nothing new"
    if len(new) >= options.min_new:
        return True, f"{len(new)} new videos"
    age = now - trained_at
    if age >= nearly(timedelta(days=options.max_age_days)):
        return True, f"{len(new)} new videos, and the last training was {age / DAY:.0f} days ago"
    return False, f"{len(new)} new videos; {options.min_new} start a training"


def _mark(videos: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(videos)).encode()).hexdigest()


def end_announced_list(
    workspace: Workspace,
    source: str,
    channel: str | None,
    parameters: VideosParameters,
    memory: Memory,
) -> None:
    """The list that was left for a training is too old for the next watch, if none took it."""
    begun = listing_begins(workspace, source, channel, parameters)
    if memory.announced_at and begun <= memory.announced_at:
        end_listing(workspace, source, channel, parameters)


def with_fresh_list(parameters: TrainParameters) -> TrainParameters:
    """A training for new videos must not take yesterday's list of them."""
    videos = parameters.videos.model_copy(update={"expiration_hours": 0.0})
    return parameters.model_copy(update={"videos": videos})


def find_news(
    workspace: Workspace,
    parameters: TrainParameters,
    options: WatchParameters,
    request: Request = request_api,
) -> News:
    """Compare a channel's videos with those that its newest version knows.

    YouTube's feed comes first, without key and quota; only if it shows something unknown is the
    API asked, for what has changed since the last time.

    Args:
        request: makes a call of YouTube's API.
    """
    registry = Registry(workspace, parameters.source, parameters.channel)
    newest = registry.newest()
    seen = registry.seen(newest)
    file = f"{registry.path}/watch.json"
    memory, limit = Memory.read(workspace, file), parameters.videos.min_duration_seconds
    listed: list[str] = []
    if newest:
        listed = source_of(parameters.source).newest(registry.identity, logger.warning)
        if listed and seen.issuperset({*listed, *memory.waiting} - memory.shorts(limit)):
            return News(new=0, train=False, why="nothing new in the feed")
    source = parameters.source
    channel = listed_as(workspace, source, parameters.channel)
    end_announced_list(workspace, source, channel, parameters.videos, memory)
    found = list_videos(workspace, source, channel, parameters.videos, request)
    unseen = [video for video in found.videos if video.id not in seen]
    new = [video.id for video in unseen]
    now = datetime.now(UTC)
    train, why = judge_news(new, registry.trained_at(newest), memory, options, now)
    dismissed = sorted({*listed} & {*found.shorts})
    update: dict[str, Any] = {"dismissed": dismissed, "longest_short": limit}
    update["waiting"] = [*new, *found.to_come]
    if train:
        update |= {"announced": _mark(new), "announced_at": now}
    workspace.write(file, memory.model_copy(update=update).model_dump_json().encode())
    table = workspace.write_table("videos", unseen) if unseen else None
    if not train:  # else the training goes on with the list: it need not ask for the same again
        end_listing(workspace, source, channel, parameters.videos)
    return News(new=len(new), train=train, why=why, videos=table)
