"""What is used again: only what is young enough, whole, and meant; and then it is used again."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from werkzeug import Response

from tests.small_channel import add_version, make_examples, quick_run
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.lookup import identify
from thumbtune.channel.registry import Registry, Version
from thumbtune.clip.models import ModelNotFoundError, find_model, folder_of, load_model
from thumbtune.data.thumbnails import DamagedThumbnailError, load_image
from thumbtune.flows.train_flow import train
from thumbtune.flows.training import TrainRun, collect
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import Stages
from thumbtune.use.champion import open_champion
from thumbtune.use.matching import Matcher

pytestmark = pytest.mark.usefixtures("prefect_harness")

# --- a list of videos, by its age ---


def list_again(workspace: Workspace, hours: float) -> Table:
    """The beginning of a run, which takes lists of so many hours."""
    parameters = TrainParameters(
        channel="@tester",
        workspace=str(workspace),
        videos={"expiration_hours": hours},
        negatives={"method": "none"},
    )

    @flow(name="list")
    def beginning() -> Table:
        identify(workspace, parameters)
        return collect(workspace, parameters, Stages(workspace, False), find_model("sample"), None)[
            1
        ]

    return beginning()


def change_results(results: Path, task: str, old: str, new: Callable[[str], str]) -> None:
    """Change a time in the stored results of a task."""
    for file in results.glob(f"{task}-v*"):
        text = file.read_text()
        file.write_text(re.sub(old, lambda found: new(found[1]), text))


def make_older(results: Path, hours: float) -> None:
    """As if all lists had been made so many hours earlier."""

    def earlier(time: str) -> str:
        before = datetime.fromisoformat(time) - timedelta(hours=hours)
        return f'listed_at\\":\\"{before.isoformat()}'

    change_results(results, "fetch-videos", r'listed_at\\+":\s*\\+"([^"\\]+)', earlier)


def test_whoever_reads_a_list_decides_whether_it_is_young_enough(
    youtube: YouTubeServer, workspace: Workspace, prefect_results: Path
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    list_again(workspace, hours=0)  # as the watch starts a training
    asked = len(youtube.requests)
    list_again(workspace, hours=24)
    assert len(youtube.requests) == asked
    make_older(prefect_results, hours=25)
    list_again(workspace, hours=26)
    assert len(youtube.requests) == asked
    list_again(workspace, hours=24)
    assert len(youtube.requests) > asked
    asked = len(youtube.requests)
    list_again(workspace, hours=1)
    assert len(youtube.requests) == asked
    list_again(workspace, hours=0)
    assert len(youtube.requests) > asked


def test_a_list_that_goes_on_with_an_unfinished_one_is_as_old_as_that(
    youtube: YouTubeServer, workspace: Workspace
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    youtube.faults_of["videos"].extend([None, *[lambda _: Response("", 503)] * 5])
    with pytest.raises(Exception, match="YouTube videos"):
        list_again(workspace, hours=24)
    [begun] = (workspace.root / "youtube-unfinished").iterdir()
    left = json.loads(begun.read_bytes())
    ten_hours_ago = (datetime.now(UTC) - timedelta(hours=10)).isoformat()
    begun.write_text(json.dumps({**left, "begun": ten_hours_ago}))
    youtube.faults_of.clear()
    list_again(workspace, hours=24)
    asked = len(youtube.requests)
    list_again(workspace, hours=11)
    assert len(youtube.requests) == asked
    list_again(workspace, hours=9)
    assert len(youtube.requests) > asked


# --- stored files, by their content ---


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Parameters for a quick run, with which a first one was made."""
    options = quick_run(tmp_path_factory.mktemp("first"))
    train(**options)
    return options


@pytest.fixture
def results(first: dict[str, Any], prefect_results: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of Prefect's results, for this test alone."""
    results = Path(shutil.copytree(prefect_results, tmp_path / "results"))
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: results}):
        yield results


@pytest.fixture
def options(first: dict[str, Any], results: Path, tmp_path: Path) -> dict[str, Any]:
    """The parameters of the first run, with a copy of its workspace and of its results."""
    shutil.copytree(first["workspace"], tmp_path / "workspace")
    return {**first, "workspace": tmp_path / "workspace"}


def metrics_of(run: TrainRun) -> dict[str, Any]:
    metrics = json.loads((Path(run.report).parent / "metrics.json").read_text())
    del metrics["training_seconds"]
    return metrics


def executed(run: TrainRun) -> set[str]:
    told = run.stages.partition("From the cache")[0].partition("executed: ")[2]
    return set(re.findall(r"[a-z-]+", told))


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "emptied": lambda file: file.write_bytes(b""),
    "cut in half": halve,
    "changed by a bit": flip,
    "gone": Path.unlink,
}

KINDS = {
    "videos/*.jsonl": {"fetch-videos"},
    "looks/*.safetensors": set(),
    "alike/*.jsonl": {"find-near-duplicates"},
    "splits/*.jsonl": {"split-videos"},
    "pairs/*.jsonl": {"mine-negatives"},
    "thumbnails/*/*.jpg": {"fetch-thumbnails"},
    "examples/*.jsonl": {"collect-examples"},
    "features/*/*.safetensors": set(),
    "features/*/*.keys": set(),
    "title_vectors/*/*.safetensors": set(),
    "models/*/model/model-00001-of-00002.safetensors": {"train", "write-cards"},
    "models/*/model/model-00002-of-00002.safetensors": {"train", "write-cards"},
    "models/*/model/model.safetensors.index.json": {"train", "write-cards"},
    "models/*/model/shared.json": {"train", "write-cards"},
    "models/*/model/config.json": {"train", "write-cards"},
    "models/*/model/README.md": {"write-cards"},
    "models/*/dataset/README.md": {"write-cards"},
    "models/*/report.html": {"report"},
    "models/*/metrics.json": {"report"},
    "models/*/misses.jpg": {"report"},
    "predictions/*.jsonl": {"evaluate"},
    "indexes/*/*/*/*.safetensors": set(),
    "indexes/*/*/*/*.jsonl": set(),
    "indexes/*/*/*/index.json": set(),
    "bases/*.json": set(),
}
"""Which files → the stages that make them."""


def one_of(workspace: Path, kind: str) -> Path:
    return sorted(workspace.glob(kind))[0]


def states(workspace: Path) -> dict[Path, tuple[int, int]]:
    """What changes when a file is written anew; of those that are not of a model's folder, which
    is stored as a whole."""
    kinds = [kind for kind in KINDS if not kind.startswith(("models", "indexes", "bases"))]
    files = [file for kind in kinds for file in workspace.glob(kind)]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


TIMED = ("README.md", "report.html", "metrics.json")
"""They tell how long a training took."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_each_kind_is_made_again_and_no_other(
    first: dict[str, Any], options: dict[str, Any], damage: str
) -> None:
    known = metrics_of(train(**first))
    workspace = Path(options["workspace"])
    damaged = {one_of(workspace, kind) for kind in KINDS}
    before = {file: file.read_bytes() for file in damaged}
    written = states(workspace)
    for file in damaged:
        DAMAGES[damage](file)
    run = train(**options)
    assert metrics_of(run) == known
    assert executed(run) == set[str]().union(*KINDS.values())
    for file in damaged:
        kept = {"features", "title_vectors"} & set(file.parts)
        needed = not kept and file.name not in TIMED
        assert not needed or file.read_bytes() == before[file], file
    now = states(workspace)
    whole = {file: state for file, state in written.items() if file not in damaged}
    assert {file: now.get(file) for file in whole} == whole
    assert train(**options).stages.startswith("Nothing to do")


@pytest.mark.parametrize(
    "kind", ["thumbnails/*/*.jpg", "models/*/model/shared.json", "predictions/*.jsonl"]
)
def test_only_the_stages_of_a_damaged_file_are_executed(options: dict[str, Any], kind: str) -> None:
    halve(one_of(Path(options["workspace"]), kind))
    assert executed(train(**options)) == KINDS[kind]


def test_damaged_features_are_encoded_again_when_they_are_needed(options: dict[str, Any]) -> None:
    another = {**options, "training": {"recipe": "given", "learning_rate": 0.02, "epochs": 1}}
    workspace = Path(options["workspace"])
    expected = metrics_of(train(**{**another, "workspace": workspace.with_name("whole")}))
    for file in workspace.glob("features/*/*.*"):
        flip(file)
    assert metrics_of(train(**another)) == expected


def test_a_picture_that_is_found_damaged_in_the_midst_of_a_run_is_fetched_in_that_run(
    options: dict[str, Any], results: Path
) -> None:
    """A disk may give other bytes than it was given, and no time of the file tells it."""
    known = metrics_of(train(**options))
    future = datetime(2999, 1, 1, tzinfo=UTC).isoformat()
    change_results(
        results,
        "fetch-thumbnails",
        r'(checked_at\\+":\s*\\+")[^"\\]+',
        lambda name: name + future,
    )
    workspace = Path(options["workspace"])
    pictures = sorted(workspace.glob("thumbnails/*/*.jpg"))
    before = [picture.read_bytes() for picture in pictures[:2]]
    for picture in pictures[:2]:
        halve(picture)
    shutil.rmtree(workspace / "features")
    run = train(**{**options, "training": {"recipe": "given", "learning_rate": 0.03, "epochs": 1}})
    assert "fetch-thumbnails" in executed(run)
    assert [picture.read_bytes() for picture in pictures[:2]] == before
    assert metrics_of(run)["untouched"] == known["untouched"]


def test_a_damaged_picture_is_an_error_with_a_mend_and_is_removed(workspace: Workspace) -> None:
    [example] = make_examples(workspace, 1)
    file = workspace.root / example.image
    flip(file)
    with pytest.raises(DamagedThumbnailError, match=r"was damaged, and was removed\. Train again"):
        load_image(workspace, example)
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        load_image(workspace, example)


# --- models, by their weights ---


def overwrite(workspace: Workspace, version: Version) -> None:
    """As an earlier thumbtune did: other weights in the place that a record names."""
    other = add_version(workspace, channel="@other", count=8, seed=1)
    folder = workspace.root / version.model.path
    shutil.rmtree(folder)
    shutil.copytree(workspace.root / other.model.path, folder)


@pytest.mark.parametrize("use", ["match", "rollback", "load"])
def test_a_record_whose_place_has_other_weights_is_told_and_not_used(
    workspace: Workspace, use: str
) -> None:
    version = add_version(workspace, count=8)
    uses: dict[str, Callable[[], object]] = {
        "match": lambda: Matcher.of_version(workspace, version),
        "rollback": lambda: Registry(workspace, "youtube", "@tester").roll_back(1, "back"),
        "load": lambda: load_model(version.model, workspace),
    }
    uses[use]()
    overwrite(workspace, version)
    with pytest.raises(ModelNotFoundError, match=r"is not as it was when it was stored\. Train"):
        uses[use]()


def test_a_record_of_an_earlier_thumbtune_keeps_its_place(workspace: Workspace) -> None:
    version = add_version(workspace, count=8)
    old = workspace.root / "models" / "a1b2c3d4e5f60718" / "model"
    old.parent.mkdir()
    (workspace.root / version.model.path).rename(old)
    for path in ("models/a1b2c3d4e5f60718/model", str(old)):
        known = version.model.model_copy(update={"path": path})
        assert folder_of(known, workspace) == old
        assert known.is_intact(workspace)


def test_a_refresh_that_comes_to_other_weights_leaves_those_of_the_earlier_version(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(options["workspace"])
    registry = Registry(workspace, "folder", options["channel"])
    [version] = registry.versions()
    before = folder_of(version.model, workspace) / "model-00002-of-00002.safetensors"
    weights = before.read_bytes()
    monkeypatch.setattr("torch.lerp", lambda a, b, share: b + 1e-6)  # other hardware rounds so
    run = train(**options, refresh=True)
    assert Path(run.model) != before.parent
    assert before.read_bytes() == weights
    first, second = registry.versions()
    assert first == version
    assert second.model.path != first.model.path
    registry.roll_back(1, "back")
    assert Matcher.of_version(workspace, first).fingerprint == first.model.fingerprint


def test_a_base_model_whose_folder_was_renamed_is_found_by_all_that_was_trained_from_it(
    options: dict[str, Any], tmp_path: Path
) -> None:
    clip = Path(shutil.copytree(options["model"], tmp_path / "clip"))
    before = {**options, "model": str(clip), "workspace": tmp_path / "new"}
    train(**before)
    renamed = clip.rename(tmp_path / "renamed")
    after = {**before, "model": str(renamed)}
    train(**after)
    matcher = open_champion(tmp_path / "new", untouched=True)
    assert matcher.fingerprint == find_model(str(renamed)).fingerprint
    run = train(**{**after, "training": {"recipe": "given", "learning_rate": 0.02, "epochs": 1}})
    registry = Registry(Workspace.open(tmp_path / "new"), "folder", options["channel"])
    _, second = registry.versions()
    assert second.untouched.name == second.untouched.path == str(renamed)
    assert second.model.name == f"{renamed} (fine-tuned)"
    assert metrics_of(run)["models"] == {
        "untouched": str(renamed),
        "fine_tuned": f"{renamed} (fine-tuned)",
    }


def test_a_base_model_that_has_other_weights_now_is_told(
    options: dict[str, Any], tmp_path: Path
) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    train(**{**options, "model": str(clip), "workspace": tmp_path / "new"})
    shutil.rmtree(clip)
    save_tiny_clip(clip, seed=1)
    with pytest.raises(ModelNotFoundError, match="has other weights than where it was used before"):
        open_champion(tmp_path / "new", untouched=True)


# --- parameters that change nothing ---

WITHOUT_INFLUENCE: dict[str, dict[str, Any]] = {
    "videos": {"expiration_hours": 99.0, "daily_quota": 77},
    "thumbnails": {"concurrency": 3, "timeout_seconds": 9.0},
    "features": {"partition_size": 4999},
    "promotion": {"keep_models": 3},
    "publish": {"private": False},
}


def test_parameters_that_change_nothing_leave_nothing_to_do(
    options: dict[str, Any], tmp_path: Path
) -> None:
    changed = {
        stage: {**options.get(stage, {}), **values} for stage, values in WITHOUT_INFLUENCE.items()
    }
    moved = Path(options["workspace"]).rename(tmp_path / "moved")
    run = train(**{**options, **changed, "workspace": moved})
    assert run.stages.startswith("Nothing to do")


def test_thumbnails_in_other_batches_are_the_same_thumbnails(options: dict[str, Any]) -> None:
    run = train(**{**options, "thumbnails": {"batch_size": 7}})
    assert executed(run) == {"fetch-thumbnails"}
