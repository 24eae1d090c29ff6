"""A channel is its id: whatever it is called, it has one registry, one lock and one list."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.listing import Video
from thumbtune.channel.lookup import identify
from thumbtune.channel.news import ChannelsFileError, read_channels
from thumbtune.channel.registry import Registry, UnknownChannelError, find_registry, registries
from thumbtune.channel.secrets import MissingSecretError
from thumbtune.channel.source import Identity
from thumbtune.channel.sources.youtube.api import ChannelNotFoundError
from thumbtune.channel.sources.youtube.channels import (
    KEPT_FOR,
    Spelling,
    YouTubeChannel,
    keep_channel,
    kept_channel,
)
from thumbtune.channel.sources.youtube.lookup import resolve
from thumbtune.channel.videos import listed_as
from thumbtune.flows.train_flow import train
from thumbtune.flows.training import TrainRun
from thumbtune.flows.watch_flow import watch
from thumbtune.names.channel_name import read_channel_name
from thumbtune.parameters import TrainParameters, VideosParameters
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace, fingerprint
from thumbtune.tasks.fetch_videos import fetch_videos

CHANNEL_ID = "UC" + "x" * 22
OTHER_ID = "UC" + "y" * 22
SPELLINGS = (
    "@tester",
    "@TESTER",
    "https://www.youtube.com/@Tester/videos",
    f"youtube.com/channel/{CHANNEL_ID}",
    "youtube.com/user/OldTester",
)
LATER = timedelta(days=1)


@pytest.fixture
def tester(youtube: YouTubeServer) -> YouTubeServer:
    youtube.add_channel([make_video(2 * n) for n in range(50)], "@Tester", username="oldtester")
    return youtube


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def ask(workspace: Workspace, told: list[str]) -> Callable[..., YouTubeChannel]:
    """Look a channel up, as the flows do."""

    def ask(channel: str, **options: Any) -> YouTubeChannel:
        return resolve(workspace, channel, 10_000, told.append, **options)

    return ask


def grow_old(workspace: Workspace, channel: str) -> None:
    """What is kept of a spelling is as old as it may be."""
    name = read_channel_name(channel)
    spelling, _ = kept_channel(workspace, name)
    assert spelling
    old = spelling.model_copy(update={"at": datetime.now(UTC) - KEPT_FOR})
    for file in (workspace.root / "channels").glob("*.json"):
        if file.read_text() == spelling.model_dump_json():
            file.write_text(old.model_dump_json())


def identify_in_flow(workspace: Workspace, channel: str) -> None:
    @flow(name="identify")
    def run() -> None:
        identify(workspace, TrainParameters(channel=channel))

    run()


def test_a_channel_is_looked_up_once_for_all_spellings_that_are_known(
    tester: YouTubeServer, ask: Callable[..., YouTubeChannel]
) -> None:
    found = {ask(channel) for channel in SPELLINGS[:4]}
    assert {channel.id for channel in found} == {CHANNEL_ID}
    assert {(channel.title, channel.handle) for channel in found} == {
        ("The channel @Tester", "@tester")
    }
    assert tester.units == 1
    assert ask(SPELLINGS[4]).id == CHANNEL_ID
    assert tester.units == 2


def test_runs_at_once_ask_once(tester: YouTubeServer, ask: Callable[..., YouTubeChannel]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert {channel.id for channel in pool.map(ask, ["@tester"] * 4)} == {CHANNEL_ID}
    assert tester.units == 1


def test_a_handle_that_went_to_another_channel_is_that_channel_and_told(
    tester: YouTubeServer,
    workspace: Workspace,
    ask: Callable[..., YouTubeChannel],
    told: list[str],
) -> None:
    ask("@tester")
    tester.channels[CHANNEL_ID]["handle"] = "@renamed"
    tester.add_channel([], "@tester", OTHER_ID)
    assert ask("@tester").id == CHANNEL_ID  # YouTube would not have given it away so soon
    grow_old(workspace, "@tester")
    assert ask("@tester", at_any_age=True).id == CHANNEL_ID
    assert told == []
    assert ask("@Tester").id == OTHER_ID
    assert told == [
        f"@Tester belongs to another channel now: {OTHER_ID}, not {CHANNEL_ID}. Give the id as "
        "channel to go on with the earlier one."
    ]
    before, after = (Registry(workspace, "youtube", spelled) for spelled in (CHANNEL_ID, "@tester"))
    assert before.name != after.name


def test_a_handle_that_is_gone_stands_for_its_channel_as_long_as_that_lives(
    tester: YouTubeServer,
    workspace: Workspace,
    ask: Callable[..., YouTubeChannel],
    told: list[str],
) -> None:
    ask("@tester")
    tester.channels[CHANNEL_ID]["handle"] = "@renamed"
    grow_old(workspace, "@tester")
    assert ask("@tester").handle == "@renamed"
    assert told == ["YouTube no longer knows @tester; its channel is @renamed now."]
    grow_old(workspace, "@tester")
    del tester.channels[CHANNEL_ID]
    with pytest.raises(ChannelNotFoundError):
        ask("@tester")


@pytest.mark.parametrize("trouble", ["no answer", "no quota", "no key"])
def test_what_is_kept_will_do_if_youtube_cannot_be_asked(
    tester: YouTubeServer,
    workspace: Workspace,
    ask: Callable[..., YouTubeChannel],
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    ask("@tester")
    grow_old(workspace, "@tester")
    if trouble == "no key":
        monkeypatch.delenv("YOUTUBE_API_KEY")
    elif trouble == "no quota":
        tester.fail_next(403, "quotaExceeded")
    else:
        tester.fail_next(503, times=5)
    assert ask("@tester").id == CHANNEL_ID
    assert told[0].startswith(f"@tester is taken for {CHANNEL_ID}, as it was when last asked: ")
    monkeypatch.delenv("YOUTUBE_API_KEY", raising=False)
    with pytest.raises(MissingSecretError):
        ask("@unknown")


@pytest.mark.parametrize("content", ["", "{", '{"id": "a", "at": "2026-01-01"}'])
def test_damaged_knowledge_of_a_channel_is_asked_for_again(
    tester: YouTubeServer,
    workspace: Workspace,
    ask: Callable[..., YouTubeChannel],
    content: str,
) -> None:
    first = ask("@tester")
    for file in (workspace.root / "channels").glob("*.json"):
        file.write_text(content)
    assert ask("@tester") == first
    assert tester.units == 1  # the answer itself was stored
    for file in workspace.root.glob("*/*.json"):
        file.write_text(content)
    assert ask("@tester") == first
    assert tester.units == 2


def test_a_clock_that_was_set_back_makes_nothing_valid_for_ever() -> None:
    now = datetime.now(UTC)
    times = (now - KEPT_FOR, now - KEPT_FOR + LATER, now, now + LATER)
    out_of_date = [Spelling(id="a", at=at).is_out_of_date(now) for at in times]
    assert out_of_date == [True, False, False, True]


@pytest.fixture
def parameters(tmp_path: Path) -> dict[str, Any]:
    clip = str(save_tiny_clip(tmp_path / "clip"))
    return {
        "model": clip,
        "workspace": str(tmp_path / "workspace"),
        "negatives": {"text_model": clip},
        "evaluation": {"method": "holdout"},
    }


@pytest.mark.usefixtures("prefect_harness")
def test_three_spellings_train_one_channel_and_the_later_ones_meet_the_champion(
    tester: YouTubeServer, workspace: Workspace, parameters: dict[str, Any]
) -> None:
    parameters["promotion"] = {"rule": "not_worse", "margin": 0.99}  # however it measures
    parameters["split"] = {"train": 0.3, "valid": 0.2}  # test has the 20 that a champion needs
    runs: list[TrainRun] = [
        train(
            **parameters,
            channel=channel,
            training={"recipe": "given", "epochs": 1, "learning_rate": rate},
        )
        for channel, rate in zip(SPELLINGS[:3], (0.01, 0.02, 0.03), strict=True)
    ]
    [folder] = (workspace.root / "registry").iterdir()
    assert folder.name.startswith("tester-")
    assert [run.verdict.version for run in runs] == [1, 2, 3]
    assert runs[0].verdict.promoted
    for run in runs[1:]:
        assert {difference.opponent for difference in run.verdict.differences} == {
            "champion",
            "untouched",
        }
    registry = Registry(workspace, "youtube", "@tester")
    assert len({version.examples.fingerprint for version in registry.versions()}) == 1
    assert tester.units == 3  # the channel, a page of its videos, what they are
    assert {find_registry(workspace, None, channel).name for channel in SPELLINGS[:4]} == {
        folder.name
    }


@pytest.mark.usefixtures("prefect_harness")
def test_a_list_that_was_not_ended_goes_on_under_another_spelling(
    tester: YouTubeServer, parameters: dict[str, Any]
) -> None:
    training = {"recipe": "given", "epochs": 1}
    with pytest.raises(Exception, match=r"videos\.daily_quota: 2 of 2"):
        train(**parameters, channel="@tester", training=training, videos={"daily_quota": 2})
    train(**parameters, channel="youtube.com/@TESTER/", training=training)
    assert tester.units == 3


def test_spellings_wait_for_one_lock(
    tester: YouTubeServer, workspace: Workspace, ask: Callable[..., YouTubeChannel]
) -> None:
    ask("@tester")
    held, other = (Registry(workspace, "youtube", channel) for channel in SPELLINGS[2:4])
    waits: list[str] = []

    def run() -> None:
        with other.one_run_at_a_time(waits.append):
            assert done

    done: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with held.one_run_at_a_time(waits.append):
            waiting = pool.submit(run)
            while not waits:
                assert not waiting.done()
            done.append("first")
        waiting.result(30)
    assert waits == [f"Another run trains {held.name}; waiting until it is done"]


def old_registry(
    workspace: Workspace,
    channel: str,
    promoted: str,
    source: str = "youtube",
    watched: str | None = None,
) -> str:
    """A registry as it was when channels went by their spelling, with a champion; its name."""
    readable = channel.rstrip("/").rpartition("/")[2].strip("@.")
    name = f"{readable}-{fingerprint(source, channel)[:8]}"
    model = ModelReference(name="clip", path="models/a/model", fingerprint="a")
    version = {
        "number": 1,
        "created": f"{promoted}T12:00:00Z",
        "model": model.model_dump(),
        "untouched": model.model_dump(),
        "parameters": TrainParameters.model_validate(
            {"source": source, "channel": channel}
        ).model_dump(mode="json"),
        "examples": Table(path="examples/a.jsonl", fingerprint="a", rows=3).model_dump(),
        "learned_from": ["a"],
        "seen": ["a"],
        "metrics": {"Recall@1": 0.5},
    }
    decision = {"number": 1, "version": 1, "champion": 1, "why": "promoted"}
    decision["at"] = f"{promoted}T12:00:00Z"
    for path, record in (("versions/000001", version), ("decisions/000001", decision)):
        workspace.write(f"registry/{name}/{path}.json", json.dumps(record).encode())
    if watched:
        workspace.write(f"registry/{name}/watch.json", json.dumps({"channel_id": watched}).encode())
    return name


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.usefixtures("tester")
@pytest.mark.parametrize("channel", SPELLINGS)
def test_a_registry_with_an_old_name_is_found_by_any_spelling(
    workspace: Workspace, channel: str
) -> None:
    old = old_registry(workspace, "https://www.youtube.com/@tester", "2026-01-01")
    identify_in_flow(workspace, channel)
    registry = Registry(workspace, "youtube", channel)
    assert registry.name == old
    assert [version.number for version in registry.versions()] == [1]
    assert [path.name for path in (workspace.root / "registry").iterdir()] == [old]


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.usefixtures("tester")
def test_of_old_registries_of_one_channel_the_newest_champions_is_used_and_the_others_told(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    names = [
        old_registry(workspace, channel, promoted)
        for channel, promoted in (
            ("https://www.youtube.com/@tester", "2026-01-01"),
            ("@Tester", "2026-03-01"),
            (CHANNEL_ID, "2026-02-01"),
        )
    ]
    another = old_registry(workspace, "@another", "2026-04-01")
    with caplog.at_level(logging.WARNING):
        identify_in_flow(workspace, "@tester")
    assert {Registry(workspace, "youtube", c).name for c in SPELLINGS[:4]} == {names[1]}
    for name in (names[0], names[2]):
        assert f"registry/{name} is of the same channel as registry/{names[1]}" in caplog.text
        assert (workspace.root / "registry" / name / "versions" / "000001.json").is_file()
    assert {registry.name for registry in registries(workspace)} == {another, names[1]}
    assert find_registry(workspace, None, "@TESTER").name == names[1]


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.usefixtures("tester")
def test_a_registry_of_an_old_handle_is_found_by_the_id_that_the_watch_had_kept(
    workspace: Workspace,
) -> None:
    old = old_registry(workspace, "@before", "2026-01-01", watched=CHANNEL_ID)
    identify_in_flow(workspace, "@tester")
    assert Registry(workspace, "youtube", "@tester").name == old
    workspace.write(f"registry/{old}/watch.json", b"{}")
    assert Registry(workspace, "youtube", CHANNEL_ID).name == old
    assert find_registry(workspace, None, "@tester").name == old


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.usefixtures("tester")
def test_a_registry_is_known_by_itself_when_all_else_was_deleted(workspace: Workspace) -> None:
    identify_in_flow(workspace, "youtube.com/user/OldTester")
    registry = Registry(workspace, "youtube", "@tester")
    old = old_registry(workspace, "youtube.com/user/OldTester", "2026-01-01")
    (workspace.root / "registry" / old / "versions").rename(
        workspace.root / registry.path / "versions"
    )
    workspace.remove("channels")
    for channel in SPELLINGS:
        assert find_registry(workspace, None, channel).name == registry.name


def test_a_damaged_registry_of_another_channel_stops_nobody(workspace: Workspace) -> None:
    damaged = old_registry(workspace, "@another", "2026-01-01")
    workspace.write(f"registry/{damaged}/versions/000001.json", b"{")
    mine = old_registry(workspace, "youtube.com/@tester", "2026-01-01")
    assert Registry(workspace, "youtube", "@tester").name == mine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `channel` in the home and in the present folder, and a link that leads there."""
    (tmp_path / "channel").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "channel")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "channel"


@pytest.mark.parametrize("source", ["folder", "hub"])
def test_a_folder_is_one_channel_by_whatever_way(
    workspace: Workspace, folder: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = (str(folder), "channel", "channel/", "./channel/.", "~/channel", "link", "link/../link")
    names = {Registry(workspace, source, way).name for way in ways}
    assert len(names) == 1
    assert names.pop().startswith("channel-")
    old = old_registry(workspace, "channel/", "2026-01-01", source)
    Registry(workspace, source, "~/channel").claim()
    monkeypatch.chdir("/")
    assert {Registry(workspace, source, str(way)).name for way in (folder, "~/link")} == {old}
    assert find_registry(workspace, None, str(folder)).name == old


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two places with a folder `videos` each, the second a copy of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "videos").mkdir(parents=True)
    (first / "videos" / "a.jpg").write_bytes(b"a")
    row = {"id": "a", "title": "A", "image": "a.jpg"}
    (first / "videos" / "manifest.json").write_text(json.dumps([row]))
    shutil.copytree(first, second)  # with the times of the files
    return first, second


@pytest.mark.parametrize(("source", "channel"), [("folder", "videos"), ("hub", "videos:Default")])
def test_a_relative_path_means_another_channel_from_another_folder(
    workspace: Workspace,
    twins: tuple[Path, Path],
    source: str,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meant = []
    for place in twins:
        monkeypatch.chdir(place)
        asked = TrainParameters.model_validate({"source": source, "channel": channel})
        assert asked.located().channel == str(place / channel)
        registry = Registry(workspace, source, channel)
        registry.claim()
        meant.append((registry.name, listed_as(workspace, source, channel)))
        monkeypatch.chdir("/")
        assert Registry(workspace, source, str(place / channel)).name == registry.name
    assert len({name for name, _ in meant}) == len({listed for _, listed in meant}) == 2


@pytest.mark.usefixtures("prefect_harness")
def test_a_copy_of_a_folder_gives_its_own_pictures(
    workspace: Workspace, twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in twins:
        monkeypatch.chdir(place)
        channel = listed_as(workspace, "folder", "videos")
        table = fetch_videos(workspace, "folder", channel, VideosParameters())
        [video] = workspace.read_table(table, Video)
        assert video.thumbnails == {"file": str(place / "videos" / "a.jpg")}


def test_an_old_registry_of_a_relative_path_belongs_to_the_folder_of_its_pictures(
    workspace: Workspace, twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = twins
    old = old_registry(workspace, "./videos", "2026-01-01", "folder")
    row = {"id": "a", "thumbnails": {"file": str(first / "videos" / "a.jpg")}}
    workspace.write("examples/a.jsonl", json.dumps(row).encode() + b"\n")
    monkeypatch.chdir(second)
    assert Registry(workspace, "folder", "videos").name != old
    with pytest.raises(UnknownChannelError, match=f"models of: --source folder.*{first}/videos"):
        find_registry(workspace, None, "videos")
    for channel in ("../first/videos", str(first / "videos")):
        assert Registry(workspace, "folder", channel).name == old
    monkeypatch.chdir(first)
    assert Registry(workspace, "folder", "videos").name == old
    monkeypatch.chdir(second)
    shutil.rmtree(first)  # moved here, for all that is known
    assert Registry(workspace, "folder", "videos").name == old


def test_an_old_registry_of_a_configuration_in_a_folder_is_found_from_there(
    workspace: Workspace, twins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_registry(workspace, "videos:Default", "2026-01-01", "hub")
    claimed = Identity(source="hub", id="videos:default", called="videos:default")
    workspace.write(f"registry/{old}/channel.json", claimed.model_dump_json().encode())
    monkeypatch.chdir(twins[0])
    assert Registry(workspace, "hub", "./videos:Default").name == old


def test_capitals_make_no_other_dataset_but_another_folder(workspace: Workspace) -> None:
    datasets = {Registry(workspace, "hub", name).name for name in ("me/Pairs", "Me/pairs/")}
    folders = {Registry(workspace, "folder", name).identity.id for name in ("me/Pairs", "me/pairs")}
    assert (len(datasets), len(folders)) == (1, 2)


def test_channels_of_equal_names_have_folders_of_their_own(workspace: Workspace) -> None:
    for n, channel_id in enumerate((CHANNEL_ID, OTHER_ID)):
        found = YouTubeChannel(id=channel_id, uploads="UU", title="x" * 300)
        keep_channel(workspace, read_channel_name(f"@name{n}"), found)
    names = {Registry(workspace, "youtube", f"@name{n}").name for n in range(2)}
    assert {name.rpartition("-")[0] for name in names} == {"x" * 40}
    assert len(names) == 2


def test_without_a_model_the_spellings_that_there_are_are_listed(workspace: Workspace) -> None:
    old_registry(workspace, "https://www.youtube.com/@tester", "2026-01-01")
    assert find_registry(workspace, None, None).channel == "https://www.youtube.com/@tester"
    for wrong in ("@nobody", "tester", "https://youtu.be/abcdefghijk"):
        with pytest.raises(UnknownChannelError, match=r"--channel https://www\.youtube\.com/@test"):
            find_registry(workspace, None, wrong)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("channels:\n  - '@b'\n  - @tester\n", "has an @ without quotes, line 3. Put the handle"),
        ("channels:\n  - channel: @tester\n", "has an @ without quotes, line 2. Put the handle"),
        ("channels:\n\t- '@a'\n", "has a tab, line 2. Indent with spaces."),
        ("channels:\n  - '@a\n", "cannot be read as YAML: while scanning a quoted scalar, found"),
        ("channels:\n  - '@a'\n  -\n", "channel 2 is empty. Write a channel there, or delete"),
        ("channels: [123]", "channel 1: channel is 123 and no text. Write it as text, in quotes."),
        ("channels: [yes]", "channel 1: channel is True and no text. Write it as text, in quotes."),
        ("channels: [['@a']]", "channel 1: channel is list and no text."),
        (
            "channels: [{channel: 2026-01-01}]",
            "channel 1: channel is datetime.date(2026, 1, 1) and",
        ),
        ("channels: [{'@a': {}}]", "channel 1: channel is missing. Add one: channel: '@handle'"),
        ("channels: [tester]", "channel 1: channel: 'tester' is no channel id"),
        ("channels: ['@a', 'youtube.com/@A/videos']", "has @a and youtube.com/@A/videos, one chan"),
        ("channels: ['@cafe\u0301', '@CAFÉ']", "one channel. Remove one."),
        (f"channels: [{CHANNEL_ID}, 'youtube.com/channel/{CHANNEL_ID}']", "one channel. Remove"),
        (
            "defaults: {source: folder}\nchannels: [/tmp/a, /tmp/b/../a/]",
            "has /tmp/a and /tmp/b/../a/, one channel. Remove one.",
        ),
    ],
)
def test_a_trap_of_yaml_or_a_channel_twice_gets_one_sentence_with_its_mend(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "channels.yaml"
    file.write_text(content)
    with pytest.raises(ChannelsFileError) as error:
        read_channels(file)
    assert str(error.value).startswith(f"channels: {file}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_needs_no_quotes_needs_none(tmp_path: Path) -> None:
    file = tmp_path / "channels.yaml"
    spelled = [CHANNEL_ID, "https://www.youtube.com/@tester", "youtube.com/@हिन्दी"]
    file.write_text("channels:\n" + "".join(f"- {channel}\n" for channel in spelled))
    assert [channel.channel for channel in read_channels(file)] == spelled


@pytest.mark.usefixtures("prefect_harness")
def test_spellings_of_one_channel_are_watched_once_and_told(
    tester: YouTubeServer,
    tmp_path: Path,
    parameters: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "channels.yaml"
    channels = ["@tester", CHANNEL_ID, "youtube.com/user/oldtester"]
    file.write_text(json.dumps({"defaults": parameters, "channels": channels}))
    with caplog.at_level(logging.WARNING):
        [news] = watch(channels=file, start="event")
    assert news.why == "50 videos and no model yet"
    for other in channels[1:]:
        assert f"{other} is the same channel as @tester, and is watched once" in caplog.text
