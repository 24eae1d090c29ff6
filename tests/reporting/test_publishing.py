"""Cards, and pushing the model and the dataset to a stand-in for the Hugging Face hub."""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from PIL import Image
from prefect.settings import get_current_settings
from sentence_transformers import SentenceTransformer

from tests.hub_server import READ_TOKEN, WRITE_TOKEN, HubServer, run_python
from tests.tiny_clip import save_tiny_clip
from thumbtune.channel.secrets import MissingSecretError
from thumbtune.clip.freezing import TrainableParameters
from thumbtune.clip.models import find_model
from thumbtune.clip.shards import OWN, share_frozen
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import Recipe, given_candidate
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation, Prediction, SplitEvaluation
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.parameters import SPLITS, PublishParameters, TrainParameters
from thumbtune.reporting.cards import dataset_card, model_card, pictured
from thumbtune.reporting.insights import Pair
from thumbtune.reporting.publishing import build_dataset
from thumbtune.reporting.report import FunnelStage
from thumbtune.store.model_reference import ModelReference, hash_of
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.publish import publish

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_CLIP = ModelReference(
    name="sentence-transformers/clip-ViT-L-14",
    path=f"/home/me/.cache/huggingface/snapshots/{COMMIT}",
    fingerprint=COMMIT,
)
FUNNEL = [
    FunnelStage(name="videos", found=121, kept=76, dropped={"of 180 s or shorter": 45}),
    FunnelStage(name="thumbnails", found=76, kept=75, dropped={"thumbnail: HTTP 404": 1}),
]
TITLES = ["Größe", "日本語のタイトル", 'Say "hi" | **now**', "🎉 party", "$x^2$, <b>", "plain"]


def picture(row: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (40 * row, 90, 200)).save(file, "JPEG")
    return file.getvalue()


def examples(workspace: Workspace, on_the_web: bool = True) -> list[Example]:
    """Two videos in each split."""
    rows = []
    for row, title in enumerate(TITLES):
        image = f"thumbnails/{row}.jpg"
        workspace.write_file(image, picture(row))
        urls = {q: f"https://i.ytimg.com/vi/v{row}/{q}.jpg" for q in ("maxres", "high")}
        local = {"file": f"/home/me/channel/{row}.jpg"}
        rows.append(
            Example(
                id=f"v{row}",
                title=title,
                thumbnails=urls if on_the_web else local,
                split=SPLITS[row % 3],
                title_neg=TITLES[row - 1],
                image=image,
            )
        )
    return rows


def trained(folder: Path) -> TrainedModel:
    weights = hash_of(folder) if folder.is_dir() else "f"
    return TrainedModel(
        model=ModelReference(
            name="it (fine-tuned)",
            path=str(folder),
            fingerprint=weights,
        ),
        fingerprint="f",
        trainable=TrainableParameters(
            total=427_616_513,
            trainable=1_376_256,
            names=["0.model.visual_projection.weight", "0.model.text_projection.weight"],
        ),
        trained_on="the frozen towers’ outputs, run once and stored",
        recipe="the given hyperparameters",
        pairs=53,
        history=[],
        best_epoch=2.0,
        seconds=6.3,
    )


def evaluation(model: ModelReference, recall: float) -> Evaluation:
    metrics = {"Recall@1": recall, "MRR": recall, "median_rank": 2.0}
    metrics |= {f"text-to-image_{name}": value for name, value in metrics.items()}
    split = SplitEvaluation(
        rows=12,
        metrics={**metrics, "cosine_accuracy": 0.9},
        intervals={"Recall@1": (recall - 0.25, recall + 0.25)},
        chance={"Recall@1": 0.083},
    )
    table = Table(path="predictions/p.jsonl", fingerprint="p", rows=36)
    return Evaluation(model=model, splits=dict.fromkeys(SPLITS, split), predictions=table)


def plan_of(settings: TrainParameters) -> Plan:
    recipe = Recipe(training=settings.training, negatives=settings.negatives)
    how = {"candidate": given_candidate(recipe), "learns": ("train",), "why": "given"}
    return Plan.model_validate({**how, "method": "holdout"})


def card(base: ModelReference = HUB_CLIP, **parameters: Any) -> str:
    settings = TrainParameters.model_validate({"channel": "@tester", **parameters})
    after = trained(Path("/home/me/workspace/models/k/model"))
    figures = evaluation(base, 0.5), evaluation(base, 0.6), evaluation(after.model, 0.75)
    return model_card(settings, FUNNEL, plan_of(settings), after, *figures)


# --- cards ---


def answered(workspace: Workspace, ranks: list[int], on_the_web: bool = True) -> list[Pair]:
    """Examples, and what a model answered to each: how far down their title was."""
    rows = examples(workspace, on_the_web)
    return [
        Pair(
            example,
            Prediction(
                split="test",
                video_id=example.id,
                rank=rank,
                similarity=0.3 + n / 100,
                top_title=f"first | for <{n}>",
                top_similarity=0.4,
            ),
        )
        for n, (example, rank) in enumerate(zip(rows, ranks, strict=True))
    ]


def shown_in(text: str) -> list[str]:
    """The addresses of the pictures that are shown, in their order."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    parts = [part for token in tokens for part in token.children or []]
    html = " ".join(part.content for part in parts if part.type == "html_inline")
    return re.findall('src="([^"]+)"', html)


def test_a_model_card_shows_the_best_and_the_worst_answers_by_their_public_pictures(
    workspace: Workspace,
) -> None:
    pairs = answered(workspace, [1, 9, 1, 1, 2, 7])
    settings = TrainParameters.model_validate({"channel": "@tester"})
    after = trained(Path("/home/me/workspace/models/k/model"))
    figures = evaluation(HUB_CLIP, 0.5), None, evaluation(after.model, 0.75)
    text = model_card(settings, FUNNEL, plan_of(settings), after, *figures, pairs)
    best_two, worst_two = ["v3", "v2"], ["v1", "v5"]
    assert shown_in(text) == [
        f"https://i.ytimg.com/vi/{video}/high.jpg" for video in best_two + worst_two
    ]
    assert "first \\| for \\<1\\>" in text


def test_a_model_card_shows_no_picture_of_this_machine(workspace: Workspace) -> None:
    assert not pictured(answered(workspace, [1, 2, 3, 1, 1, 1], on_the_web=False))
    assert "<img" not in card()


def test_a_model_card_names_its_base_and_library() -> None:
    data = ModelCard(card(publish={"model_repo": "owner/clip", "dataset_repo": "owner/d"})).data
    assert data.base_model == "sentence-transformers/clip-ViT-L-14"
    assert data.license == "apache-2.0"
    assert {"sentence-transformers", "clip", "thumbtune"} <= set(data.tags or ())
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert data.datasets == ["owner/d"]


def test_a_model_cards_results_are_the_fine_tuned_models() -> None:
    results = ModelCard(card()).data.eval_results or []
    recall = {r.dataset_split: r.metric_value for r in results if r.metric_type == "Recall@1"}
    assert recall == {"train": 0.75, "valid": 0.75, "test": 0.75}


def test_a_model_card_compares_both_models_with_intervals_and_chance() -> None:
    text = card()
    row = "Recall@1, thumbnail → title | 0.083 | 0.500 (0.250 to 0.750) | 0.600 (0.350 to 0.850) "
    row += "| 0.750 (0.500 to 1.000)"
    for split in SPLITS:
        assert f"| {split} (12) | {row} |" in text
    assert "| Recall@1, title → thumbnail |" in text
    assert "| median rank, title → thumbnail |" in text
    assert "| triplet accuracy |" in text


def test_a_model_card_tells_how_the_model_came_about() -> None:
    text = card(seed=7, training={"epochs": 3, "learning_rate": 0.0002})
    assert "1,376,256 of 427,616,513 parameters\n(0.32 %)" in text
    assert "| epochs | 3, of which epoch 2 was kept |" in text
    assert "| learning rate | 0.0002 |" in text
    assert "| seed | 7 |" in text
    assert "| videos | 121 | 76 | 45 of 180 s or shorter |" in text
    assert "arXiv:1705.00652" in text
    assert "Shaw Talebi" in text


def test_a_model_cards_example_scores_titles_for_a_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_clip(tmp_path / "model")
    (tmp_path / "thumbnail.jpg").write_bytes(picture(1))
    monkeypatch.chdir(tmp_path)
    exec(card().split("```python\n")[1].split("```")[0], {})
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert {title for _, title in lines} == {"One idea", "Another idea"}
    assert float(lines[0][0]) >= float(lines[1][0])


@pytest.mark.parametrize("given", ["/home/me/models/clip", "~/models/clip", "models/clip"])
def test_cards_show_no_path_of_this_machine(given: str, tmp_path: Path) -> None:
    folder = ModelReference(name=given, path="/home/me/models/clip", fingerprint="0f")
    channel = tmp_path / "my-channel"
    channel.mkdir()
    for source in ("folder", "hub"):
        text = card(folder, source=source, channel=str(channel), model=given)
        data = dataset_card(TrainParameters(source=source, channel=str(channel)), FUNNEL, {})
        assert ModelCard(text).data.base_model is None
        assert "\nclip, adapted to the titles and thumbnails of my-channel with\n" in text
        for shown in (text, data):
            assert "my-channel" in shown
            assert not [
                place for place in ("/home/me", str(tmp_path), "~", given) if place in shown
            ]


def test_a_dataset_card_counts_its_rows() -> None:
    settings = TrainParameters(channel="@tester")
    text = dataset_card(settings, FUNNEL, {"train": 53, "valid": 11, "test": 12})
    assert "Splits by hash: train 53, valid 11, test 12." in text
    assert DatasetCard(text).data.pretty_name == "Titles and thumbnails of @tester"


# --- the dataset ---


def test_the_dataset_has_the_articles_columns_and_splits(workspace: Workspace) -> None:
    dataset = build_dataset(workspace, examples(workspace))
    assert list(dataset) == ["train", "valid", "test"]
    assert dataset["test"].column_names == ["video_id", "title", "thumbnail_url", "title_neg"]
    assert dataset["test"][0] == {
        "video_id": "v2",
        "title": TITLES[2],
        "thumbnail_url": "https://i.ytimg.com/vi/v2/high.jpg",
        "title_neg": TITLES[1],
    }


@pytest.mark.parametrize("place", ["/home/me/0.jpg", "file:///home/me/0.jpg"])
def test_pictures_of_this_machine_are_embedded_without_their_paths(
    workspace: Workspace, place: str
) -> None:
    rows = examples(workspace)
    rows[0] = rows[0].model_copy(update={"thumbnails": {"file": place}})  # one is enough
    dataset = build_dataset(workspace, rows)
    assert dataset["train"].column_names == ["video_id", "title", "image", "title_neg"]
    stored = dataset["train"].data.column("image").to_pylist()
    assert stored == [{"bytes": picture(row), "path": None} for row in (0, 3)]


# --- the hub ---

PUBLISH = """
import json, os, traceback
from pathlib import Path
from thumbtune.parameters import PublishParameters
from thumbtune.tasks.publish import publish
from thumbtune.learning.trained_model import TrainedModel
from thumbtune.store.workspace import Table, Workspace
given = json.loads(os.environ["GIVEN"])
workspace = Workspace.open(Path(given["workspace"]))
answers = {}
for key, token, model, examples, repositories in given["runs"]:
    os.environ["HF_TOKEN"] = token
    try:
        answers[key] = publish.with_options(retry_delay_seconds=0.05)(
            workspace,
            PublishParameters(**repositories),
            TrainedModel.model_validate(model),
            Table(**examples),
        )
    except Exception as error:
        traceback.print_exc()
        answers[key] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""

DOWNLOAD = """
import json, os
import datasets
from PIL import Image
from sentence_transformers import SentenceTransformer
from pathlib import Path
from thumbtune.channel.sources.hub.listing import list_hub
from thumbtune.store.workspace import Workspace
model = SentenceTransformer("owner/clip")
rows = {}
for name in ("owner/pairs", "owner/pictures"):
    loaded = datasets.load_dataset(name)
    if "image" in loaded["train"].column_names:
        loaded = loaded.cast_column("image", datasets.Image(decode=False))
    rows[name] = {split: list(loaded[split]) for split in loaded}
    for row in (row for split in rows[name].values() for row in split if "image" in row):
        row["image"] = row["image"]["bytes"].hex()
workspace = Workspace.open(Path(os.environ["HF_HOME"]) / "workspace")
print(json.dumps({
    "titles": model.encode(["A title", "Noch einer"]).tolist(),
    "pictures": model.encode([Image.new("RGB", (64, 48), "red")]).tolist(),
    "rows": rows,
    "listed": [video.model_dump() for video in list_hub(workspace, "owner/pairs")],
}))
"""


class Published(NamedTuple):
    """What a process did that published several times."""

    folder: Path
    """Holds the workspace and the hub's cache."""
    model: Path
    names: set[str]
    """Of its files, before its weights were cut in two."""
    answers: dict[str, Any]
    output: str


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def published(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("publish")
    workspace = Workspace.open(folder / "workspace")
    model = save_tiny_clip(workspace.root / "models" / "k" / "model")
    other = save_tiny_clip(workspace.root / "models" / "other" / "model", seed=1)
    for where in (model, other):
        (where / "README.md").write_text(card())
        text = dataset_card(TrainParameters(channel="@tester"), FUNNEL, {})
        (where.parent / "dataset").mkdir()
        (where.parent / "dataset" / "README.md").write_text(text)
    names = {file.name for file in model.iterdir()}
    share_frozen(model, {"visual_projection.weight"}, find_model(str(other)), workspace)
    pairs = workspace.write_table("examples", examples(workspace)).model_dump()
    pictures = workspace.write_table("examples", examples(workspace, False)).model_dump()
    clip, other_clip = trained(model).model_dump(), trained(other).model_dump()
    both = {"model_repo": "owner/clip", "dataset_repo": "owner/pairs"}
    weights = hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    hub.failures += [
        ("/api/models/owner/slow/commit", 503),
        ("/api/datasets/owner/slow/commit", 503),
        (f"PUT /lfs/{weights}", 403),
    ]
    runs = [
        ("first", WRITE_TOKEN, clip, pairs, both),
        ("second", WRITE_TOKEN, clip, pairs, both),
        ("pictures", WRITE_TOKEN, clip, pictures, {"dataset_repo": "owner/pictures"}),
        ("public", WRITE_TOKEN, clip, pairs, {"model_repo": "owner/public", "private": False}),
        (
            "failing once",
            WRITE_TOKEN,
            clip,
            pairs,
            {"model_repo": "owner/slow", "dataset_repo": "owner/slow"},
        ),
        ("no storage", WRITE_TOKEN, other_clip, pairs, {"model_repo": "owner/full"}),
        ("wrong token", "hf_wrongToken", clip, pairs, {"model_repo": "owner/new"}),
        ("wrong token, dataset", "hf_wrongToken", clip, pairs, {"dataset_repo": "owner/new"}),
        ("read token", READ_TOKEN, clip, pairs, {"model_repo": "owner/new"}),
        ("other's namespace", WRITE_TOKEN, clip, pairs, {"model_repo": "somebody/clip"}),
    ]
    given = json.dumps({"workspace": str(workspace.root), "runs": runs})
    done = run_python(PUBLISH, hub.environment(folder / "home", GIVEN=given))
    answers = json.loads(done.stdout.splitlines()[-1])
    return Published(folder, model, names, answers, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def downloaded(
    hub: HubServer, published: Published, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What another machine gets, whose cache is empty."""
    home = tmp_path_factory.mktemp("another-home")
    done = run_python(DOWNLOAD, hub.environment(home, HF_TOKEN=READ_TOKEN))
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_addresses_of_the_commits_are_told(hub: HubServer, published: Published) -> None:
    model = hub.repositories["model", "owner/clip"].head
    dataset = hub.repositories["dataset", "owner/pairs"].head
    assert published.answers["first"] == [
        f"{hub.url}/owner/clip/commit/{model}",
        f"{hub.url}/datasets/owner/pairs/commit/{dataset}",
    ]


@pytest.mark.compatibility
def test_a_pushed_model_embeds_as_before(published: Published, downloaded: dict[str, Any]) -> None:
    model = SentenceTransformer(str(published.model))
    titles = model.encode(["A title", "Noch einer"])
    pictures = model.encode([Image.new("RGB", (64, 48), "red")])
    np.testing.assert_allclose(downloaded["titles"], titles, atol=1e-5)
    np.testing.assert_allclose(downloaded["pictures"], pictures, atol=1e-5)


def test_a_pushed_model_has_its_card(hub: HubServer, published: Published) -> None:
    pushed = hub.repositories["model", "owner/clip"].files
    assert pushed["README.md"].data.decode() == card()
    assert set(pushed) == published.names


@pytest.mark.compatibility
def test_a_pushed_dataset_has_equal_rows_and_splits(
    tmp_path: Path, downloaded: dict[str, Any]
) -> None:
    workspace = Workspace.open(tmp_path)
    expected = build_dataset(workspace, examples(workspace))
    assert downloaded["rows"]["owner/pairs"] == {name: list(expected[name]) for name in expected}


def test_pushed_pictures_are_the_same_bytes(downloaded: dict[str, Any]) -> None:
    rows = downloaded["rows"]["owner/pictures"]
    got = {row["video_id"]: bytes.fromhex(row["image"]) for split in rows.values() for row in split}
    assert got == {f"v{row}": picture(row) for row in range(len(TITLES))}


def test_a_pushed_dataset_serves_as_hub_source(tmp_path: Path, downloaded: dict[str, Any]) -> None:
    fields = ("id", "title", "split", "title_neg")
    rows = [example.model_dump() for example in examples(Workspace.open(tmp_path))]
    listed = sorted(downloaded["listed"], key=lambda video: str(video["id"]))
    assert [[v[f] for f in fields] for v in listed] == [[r[f] for f in fields] for r in rows]


def test_a_pushed_dataset_has_our_card_and_datasets_own_facts(
    hub: HubServer, published: Published
) -> None:
    pushed = hub.repositories["dataset", "owner/pairs"].files["README.md"].data.decode()
    data = DatasetCard(pushed).data.to_dict()
    assert "# Titles and thumbnails of @tester" in pushed
    assert data["pretty_name"] == "Titles and thumbnails of @tester"
    assert data["license"] == "other"
    assert {"youtube", "thumbnails"} <= set(data["tags"])
    assert [split["num_examples"] for split in data["dataset_info"]["splits"]] == [2, 2, 2]


def test_repositories_are_private_unless_asked(hub: HubServer, published: Published) -> None:
    private = {name: hub.repositories[name].private for name in hub.repositories}
    assert private["model", "owner/clip"]
    assert private["dataset", "owner/pairs"]
    assert not private["model", "owner/public"]


def test_publishing_the_same_again_makes_no_commit(published: Published) -> None:
    assert published.answers["second"] == published.answers["first"]


def test_a_failing_hub_is_tried_again(hub: HubServer, published: Published) -> None:
    addresses = published.answers["failing once"]
    assert addresses[0].endswith(hub.repositories["model", "owner/slow"].head)
    assert addresses[1].endswith(hub.repositories["dataset", "owner/slow"].head)
    posted = [r for r in hub.requests if r == "POST /api/models/owner/slow/commit/main"]
    assert len(posted) == 2  # the failed one and its repetition; later tries found nothing new


@pytest.mark.parametrize(
    ("run", "status"),
    [
        ("wrong token", 401),
        ("wrong token, dataset", 401),
        ("read token", 403),
        ("other's namespace", 403),
        ("no storage", 403),
    ],
)
def test_a_refusal_tells_the_mend(published: Published, run: str, status: int) -> None:
    said = published.answers[run]
    assert said.startswith("PublishError: publish: the hub refused to write ")
    assert f"(HTTP {status}). Set HF_TOKEN to a token with write permission" in said


def test_a_refusal_is_not_tried_again(hub: HubServer, published: Published) -> None:
    assert published.answers["wrong token, dataset"].startswith("PublishError")
    assert hub.requests.count("GET /api/datasets/owner/new") == 1


def test_the_token_is_in_no_file_log_or_message(
    hub: HubServer, published: Published, prefect_results: Path
) -> None:
    assert "Published: " in published.output  # the log is there to look at
    url = get_current_settings().server.database.connection_url
    assert url
    database = Path(url.get_secret_value().partition(":///")[2])
    folders = [published.folder, prefect_results, database.parent]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert {published.model / OWN, database} <= set(files)
    for token in (WRITE_TOKEN, READ_TOKEN, "hf_wrongToken"):
        assert token not in published.output
        assert not [file for file in files if token.encode() in file.read_bytes()]
        for repository in hub.repositories.values():
            assert not any(token.encode() in blob.data for blob in repository.files.values())


@pytest.mark.usefixtures("prefect_harness")
def test_publishing_without_a_token_tells_how_to_set_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    model = trained(save_tiny_clip(workspace.root / "models" / "k" / "model"))
    table = workspace.write_table("examples", examples(workspace))
    with pytest.raises(MissingSecretError, match="environment variable HF_TOKEN"):
        publish(workspace, PublishParameters(model_repo="owner/clip"), model, table)
