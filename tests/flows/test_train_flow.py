"""The main flow run whole: real Prefect runs, a stand-in YouTube, a tiny CLIP."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import get_current_settings
from sentence_transformers import SentenceTransformer

from tests.data.test_thumbnails import picture, saved
from tests.flow_runs import newest_run
from tests.server_logs import Logs
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.registry import Registry
from thumbtune.channel.videos import list_videos
from thumbtune.clip.ahead import look_ahead
from thumbtune.clip.freezing import NothingMatchesError
from thumbtune.clip.models import find_model, load_model
from thumbtune.data.thumbnails import Example, TooManyBadThumbnailsError
from thumbtune.errors import SourceError
from thumbtune.flows.train_flow import train
from thumbtune.flows.training import TrainRun
from thumbtune.learning.evaluation import RecallEvaluator
from thumbtune.parameters import EvaluationParameters, VideosParameters
from thumbtune.store.workspace import Table, Workspace
from thumbtune.text.escaping import for_markdown
from thumbtune.use.indexing import channel_place, open_index

pytestmark = pytest.mark.usefixtures("prefect_harness")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_clip(tmp_path_factory.mktemp("models") / "clip"))


@pytest.fixture
def options(tmp_path: Path, clip: str) -> dict[str, Any]:
    """Parameters for a quick run."""
    return {
        "channel": "@tester",
        "model": clip,
        "workspace": tmp_path / "workspace",
        "negatives": {"text_model": clip},
        "evaluation": {"method": "holdout"},
        "training": {"recipe": "given", "learning_rate": 0.01, "batch_size": 8},
        "thumbnails": {"batch_size": 30},
    }


@pytest.fixture
def channel(youtube: YouTubeServer) -> list[dict[str, Any]]:
    """Sixty long-form videos and two shorts."""
    videos = [make_video(n) for n in range(60)]
    videos += [make_video(n, duration="PT20S") for n in (60, 61)]
    youtube.add_channel(videos)
    return videos


def metrics_of(run: TrainRun) -> dict[str, Any]:
    metrics = json.loads((Path(run.report).parent / "metrics.json").read_text())
    del metrics["training_seconds"]
    return metrics


def examples_of(options: dict[str, Any]) -> tuple[Workspace, list[Example]]:
    workspace = Workspace.open(options["workspace"])
    [file] = (workspace.root / "examples").iterdir()
    path = str(file.relative_to(workspace.root))
    return workspace, workspace.read_table(Table(path=path, fingerprint="", rows=0), Example)


KINDS = (
    *("summary", "metrics", "recipe", "parameters", "data-funnel", "trainable-parameters"),
    *("loss-curve", "worst-misses", "promotion", "field"),
    *("sweep-comparison", "sweep-trials", "sweep-plot"),
)


def posted_artifacts() -> dict[str, Artifact]:
    """Kind → the newest artifact; behind it the key names the channel."""

    async def read() -> list[Artifact]:
        async with get_client() as client:
            return await client.read_artifacts(sort=ArtifactSort.CREATED_DESC)

    posted: dict[str, Artifact] = {}
    for artifact in reversed(asyncio.run(read())):
        kind = next((kind for kind in KINDS if str(artifact.key).startswith(f"{kind}-")), "")
        posted[kind] = artifact
    return posted


def work_of_the_last_run() -> dict[str, str]:
    rows = json.loads(str(posted_artifacts()["data-funnel"].data))
    return {row["stage"]: row["in this run"] for row in rows}


@pytest.mark.compatibility
@pytest.mark.usefixtures("channel")
def test_a_channel_becomes_a_measured_model_and_a_second_run_does_nothing_again(
    youtube: YouTubeServer, options: dict[str, Any]
) -> None:
    first = train(**options)

    metrics = metrics_of(first)
    assert metrics["data_funnel"] == [
        {"name": "videos", "found": 62, "kept": 60, "dropped": {"of 180 s or shorter": 2}},
        {"name": "thumbnails", "found": 60, "kept": 60, "dropped": {}},
    ]
    told = "Left out: 2 of 62 videos (2 of 180 s or shorter); 0 of 60 thumbnails."
    assert first.left_out == told
    assert sum(metrics["rows"].values()) == 60
    for split in ("train", "valid", "test"):
        for metric in ("Recall@1", "Recall@5", "Recall@10", "MRR", "cosine_accuracy"):
            for model in ("untouched", "fine_tuned"):
                assert 0 <= metrics[model][f"yt-title-thumbnail-{split}_{metric}"] <= 1
    assert metrics["fine_tuned"] != metrics["untouched"]
    trainable = metrics["trainable_parameters"]
    assert [name.split(".")[-2] for name in trainable["names"]] == [
        "visual_projection",
        "text_projection",
    ]
    for name in ("parameters.json", "loss_curve.png", "misses.jpg", "model/README.md"):
        assert (Path(first.report).parent / name).stat().st_size > 0

    artifacts = posted_artifacts()
    assert {
        "metrics",
        "parameters",
        "data-funnel",
        "trainable-parameters",
        "loss-curve",
        "worst-misses",
    } <= set(artifacts)
    assert "![Worst misses on the test split](data:image/jpeg;base64," in str(
        artifacts["worst-misses"].data
    )

    asked = youtube.image_requests.total()
    second = train(**options)
    assert second.stages.startswith("Nothing to do")
    assert second.left_out == told
    assert youtube.image_requests.total() == asked
    assert metrics_of(second) == metrics


@pytest.mark.usefixtures("channel")
def test_the_saved_model_loads_plainly_and_gives_the_same_recall(options: dict[str, Any]) -> None:
    run = train(**options)
    workspace, examples = examples_of(options)
    test = [example for example in examples if example.split == "test"]
    evaluator = RecallEvaluator(workspace, test, "test", EvaluationParameters())
    metrics = evaluator(SentenceTransformer(run.model))
    stored = metrics_of(run)["fine_tuned"]
    assert metrics == {name: stored[name] for name in metrics}


@pytest.mark.usefixtures("channel")
def test_a_run_in_another_workspace_gives_the_same_metrics(
    options: dict[str, Any], tmp_path: Path
) -> None:
    first = metrics_of(train(**options))
    assert metrics_of(train(**{**options, "workspace": tmp_path / "other"})) == first
    assert metrics_of(train(**{**options, "seed": 43})) != first


def test_a_grown_channel_fetches_only_what_is_new(
    youtube: YouTubeServer, channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    train(**options)
    _, before = examples_of(options)
    assert work_of_the_last_run() == {
        "videos": "4 units of quota: 4 answers fetched, 0 unchanged",
        "thumbnails": "60 of 60 downloaded",
        "features": "120 encoded, 0 there",
    }
    asked = youtube.image_requests.copy()
    channel.append(make_video(100))
    train(**{**options, "refresh": False, "videos": {"expiration_hours": 0}})
    assert work_of_the_last_run() == {
        # who the channel is was asked once
        "videos": "4 units of quota: 4 answers fetched, 0 unchanged",
        "thumbnails": "1 of 61 downloaded",
        "features": "2 encoded, 120 there",
    }
    assert youtube.image_requests - asked == {"/vi/video-00100/maxres.jpg": 1} | {
        path: 1 for path in asked if "maxres" in path and int(path[10:15]) % 2
    }
    workspace = Workspace.open(options["workspace"])
    tables = list((workspace.root / "examples").iterdir())
    splits = {example.id: example.split for example in before}
    for file in tables:
        table = Table(path=str(file.relative_to(workspace.root)), fingerprint="", rows=0)
        for example in workspace.read_table(table, Example):
            assert splits.get(example.id, example.split) == example.split


def test_what_is_ahead_is_counted_among_the_channels_own_thumbnails(
    channel: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    train(**options)
    channel += [make_video(n) for n in (70, 71, 72)]
    workspace, model = Workspace.open(options["workspace"]), find_model(options["model"])
    videos = list_videos(workspace, "youtube", "@tester", VideosParameters()).videos
    ahead = look_ahead(workspace, videos, "listed now", model, anew=False)
    assert (ahead.videos, ahead.stored, ahead.encode) == (63, 60, 3)
    assert ahead.seconds > 0
    assert str(ahead).startswith("Ahead: 63 videos (listed now); 60 thumbnails stored, 3 to fetch;")
    assert look_ahead(workspace, videos, "listed now", model, anew=True).stored == 0


def test_a_better_challenger_is_promoted_and_a_worse_one_is_kept_with_the_reason(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {
        "source": "sample",
        "model": "sample",
        "workspace": tmp_path / "workspace",
        "negatives": {"text_model": "sample"},
        "evaluation": {"method": "holdout"},
    }
    registry = Registry(Workspace.open(tmp_path / "workspace"), "sample", None)
    first = train(
        **options, training={"recipe": "given", "epochs": 4, "learning_rate": 0.001}
    ).verdict
    assert (first.version, first.promoted, first.champion) == (1, True, 1)
    worse = train(
        **options, training={"recipe": "given", "epochs": 1, "learning_rate": 1e-6}
    ).verdict
    assert (worse.version, worse.promoted, worse.champion) == (2, False, 1)
    assert "kept, not promoted: MRR" in worse.why
    assert "against the champion's" in worse.why
    artifact = posted_artifacts()["promotion"]
    assert for_markdown(worse.why.replace("`", "")) in str(artifact.description)
    assert [row["against"] for row in json.loads(str(artifact.data))] == ["champion", "untouched"]
    better = train(
        **options, training={"recipe": "given", "epochs": 10, "learning_rate": 0.002}
    ).verdict
    assert (better.version, better.promoted, better.champion) == (3, True, 3)

    registry.roll_back(1, "by hand")
    again = train(
        **options, training={"recipe": "given", "epochs": 10, "learning_rate": 0.002}
    ).verdict
    assert (again.promoted, again.champion) == (False, 1)
    assert again.why.startswith("was decided on before: promoted")
    champion = registry.champion()
    assert champion is not None
    workspace = Workspace.open(tmp_path / "workspace")
    assert load_model(champion.model, workspace).supports("image")
    place = channel_place(champion.model.fingerprint, champion)
    index = open_index(workspace, place)
    indexed = {row.id for row in workspace.read_table(champion.examples, Example)}
    assert {entry.id for entry in index.entries} == indexed


@pytest.mark.usefixtures("channel")
def test_a_rollback_during_a_run_is_met_and_told_in_one_line(
    youtube: YouTubeServer, options: dict[str, Any]
) -> None:
    options["split"] = {"train": 0.45, "valid": 0.15}  # test has the 20 that a champion needs
    registry = Registry(Workspace.open(options["workspace"]), "youtube", "@tester")
    for rate in (0.01, 0.02):
        train(**{**options, "training": {"recipe": "given", "learning_rate": rate, "epochs": 1}})
    registry.roll_back(2, "before")

    def roll_back_once() -> None:
        youtube.before_page = lambda: None
        registry.roll_back(1, "the other one misses the point")

    youtube.before_page = roll_back_once
    run = train(
        **{
            **options,
            "training": {"recipe": "given", "epochs": 1},
            "videos": {"expiration_hours": 0},
        }
    )
    assert run.verdict.differences[0].opponent == "champion"
    _, logs = asyncio.run(newest_run("train"))
    assert [log.message for log in logs if log.message.startswith("While this run went on")] == [
        f"While this run went on, it was decided on version 1 of {registry.name}: the other one "
        "misses the point; champion: 1"
    ]


@pytest.mark.usefixtures("channel")
def test_a_lost_file_of_the_workspace_is_made_again(options: dict[str, Any]) -> None:
    first = train(**options)
    metrics = metrics_of(first)
    workspace, examples = examples_of(options)
    (workspace.root / examples[0].image).unlink()
    Path(first.report).unlink()
    again = train(**options)
    assert "fetch-thumbnails" in again.stages.partition("From the cache")[0]
    assert Path(again.report).exists()
    assert metrics_of(again) == metrics


@pytest.mark.usefixtures("channel")
def test_the_articles_own_way_runs(options: dict[str, Any]) -> None:
    run = train(
        **{
            **options,
            "videos": {"listing": "search"},
            "split": {"method": "shuffle"},
            "negatives": {"text_model": options["model"], "scope": "before_split"},
            "thumbnails": {"quality": "high", "crop_letterbox": False},
        }
    )
    _, examples = examples_of(options)
    assert metrics_of(run)["rows"] == {"train": 42, "valid": 9, "test": 9}
    assert sorted(str(e.title_neg) for e in examples) == sorted(e.title for e in examples)
    assert all(example.crop is None for example in examples)


def local_channel(folder: Path, missing: int) -> dict[str, Any]:
    """Forty videos in a semicolon file, one of them with an MPO picture and one with an AVIF."""
    folder.mkdir()
    rows = ["Video ID;Title;Image"]
    for n in range(40):
        kind = {0: "MPO", 1: "AVIF"}.get(n, "JPEG")
        more = {"save_all": True, "append_images": [picture()]} if kind == "MPO" else {}
        if n < 40 - missing:
            (folder / f"{n}.jpg").write_bytes(saved(picture(seed=n), kind, **more))
        rows.append(f"{n};Title {n}, with a comma;{n}.JPG")
    (folder / "manifest.csv").write_text("\n".join([*rows, ";;"]))
    return {"source": "folder", "channel": str(folder)}


def test_a_folder_trains_without_the_pictures_that_are_of_no_use(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = local_channel(tmp_path / "channel", missing=2)
    monkeypatch.chdir(tmp_path)
    run = train(**{**options, **local, "channel": "channel"})
    monkeypatch.chdir("/")
    registry = Registry(Workspace.open(options["workspace"]), "folder", local["channel"])
    assert [v.parameters.channel for v in registry.versions()] == [local["channel"]]
    _, examples = examples_of(options)
    assert {int(example.id) for example in examples} == {0, *range(2, 38)}
    metrics = json.loads((Path(run.report).parent / "metrics.json").read_text())
    assert metrics["data_funnel"][1]["dropped"] == {
        "thumbnail: not a JPEG, PNG, WebP or GIF picture but AVIF": 1,
        "thumbnail: file missing or unreadable": 2,
    }


def test_pictures_that_are_not_there_are_told_before_a_model_is_looked_for(
    options: dict[str, Any], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "no model")
    lacking = {**options, **local_channel(tmp_path / "channel", missing=5), "model": nowhere}
    with pytest.raises(SourceError, match=r"5 of 40 pictures are not in .*: '35\.JPG', '36\.JPG'"):
        train(**lacking)


@pytest.mark.usefixtures("channel")
def test_a_clip_in_the_hubs_old_layout_is_trained_too(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """As sentence-transformers/clip-ViT-L-14 still is: everything in a folder 0_CLIPModel."""
    layout = tmp_path / "old-layout"
    shutil.copytree(options["model"], layout / "0_CLIPModel")
    (layout / "0_CLIPModel" / "modules.json").unlink()
    (layout / "0_CLIPModel" / "sentence_bert_config.json").unlink()
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel"}
    module["type"] = "sentence_transformers.models.CLIPModel"
    (layout / "modules.json").write_text(json.dumps([module]))
    run = train(**{**options, "model": str(layout)})
    assert len(metrics_of(run)["trainable_parameters"]["names"]) == 2
    embedding = SentenceTransformer(run.model).encode("a title")
    assert embedding.shape == SentenceTransformer(str(layout)).encode("a title").shape


@pytest.mark.usefixtures("channel")
def test_a_wrong_fragment_fails_before_a_video_is_listed(
    youtube: YouTubeServer, options: dict[str, Any]
) -> None:
    options["training"] = {"trainable": ["projektion"]}
    with pytest.raises(NothingMatchesError, match=r"projektion.*visual_projection"):
        train(**options)
    assert {request.path for request in youtube.requests} == {"/youtube/v3/channels"}


def test_a_channel_without_thumbnails_stops_with_the_reasons(
    youtube: YouTubeServer, options: dict[str, Any]
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    youtube.has_thumbnails = False
    with pytest.raises(TooManyBadThumbnailsError, match="60 of 60 thumbnails are unusable"):
        train(**options)


def run_script(
    folder: Path, arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "flows" / "train_flow.py"), *arguments.split()],
        cwd=folder,
        env={**os.environ, "PREFECT_HOME": str(folder / "prefect"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.compatibility
def test_the_script_runs_from_anywhere_and_fine_tuning_helps_on_the_sample(
    tmp_path: Path, logs: Logs, tables: Path
) -> None:
    (tmp_path / "prefect").mkdir()
    shutil.copy(tables, tmp_path / "prefect" / "prefect.db")
    done = run_script(
        tmp_path,
        "--source sample --model sample --negatives.text_model sample --workspace here "
        "--training.epochs 4 --training.learning_rate 0.001",
    )
    logs.new("script").write_text(done.stderr)  # its Prefect server writes there too
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("Recall@1 of all"))
    before, _, after = (float(word) for word in line.split() if word[0] == "0")
    assert after > before + 0.1
    assert str(tmp_path / "here" / "models") in done.stdout
    assert "--channel @handle" in done.stdout


def test_the_script_ends_with_one_plain_sentence_when_the_channel_is_wrong(tmp_path: Path) -> None:
    api = get_current_settings().api.url
    assert api
    done = run_script(
        tmp_path,
        "--source folder --channel gone --model sample --negatives.text_model sample "
        "--workspace here",
        PREFECT_API_URL=api,
    )
    assert done.returncode == 1
    said = "thumbtune: channel: there is no folder 'gone'. Give an existing folder."
    assert said in done.stderr.splitlines()
