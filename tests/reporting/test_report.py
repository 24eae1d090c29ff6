"""What a report tells and shows, and that no title can break it."""

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prefect import flow

from thumbtune.channel.registry import Decision
from thumbtune.clip.freezing import TrainableParameters
from thumbtune.data.thumbnails import Example
from thumbtune.learning.candidates import UNTOUCHED, Recipe, given_candidate
from thumbtune.learning.choice import Tried
from thumbtune.learning.choosing import Plan
from thumbtune.learning.evaluation import Evaluation, Prediction, SplitEvaluation
from thumbtune.learning.trained_model import LossPoint, TrainedModel
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.figures import (
    CARD,
    GAP,
    HEADER,
    PAD,
    THUMBNAIL,
    Miss,
    loss_curve,
    miss_sheet,
    misses_heading,
    thumbnail_jpeg,
    worst_misses,
)
from thumbtune.reporting.report import (
    FunnelStage,
    Report,
    metrics_json,
    parameter_table,
    report_html,
)
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Table, Workspace
from thumbtune.tasks.caching import Stages
from thumbtune.tasks.write_report import write_report

HISTORY = [
    LossPoint(epoch=0.5, train_loss=2.0),
    LossPoint(epoch=1, train_loss=1.0),
    LossPoint(epoch=1, valid_loss=1.5, valid_mrr=0.5),
    LossPoint(epoch=2, train_loss=0.5),
    LossPoint(epoch=2, valid_loss=1.0, valid_mrr=0.75),
]
PARAMETERS = TrainParameters(channel="@tester")
CURVES = [loss_curve(HISTORY, 2, for_phone) for for_phone in (False, True)]
BECAME = Decision(
    number=1, version=3, champion=3, why="R@1 < 1", at=datetime(2024, 2, 3, tzinfo=UTC)
)
GIVEN = given_candidate(Recipe(training=PARAMETERS.training, negatives=PARAMETERS.negatives))
PLAN = Plan(
    candidate=GIVEN,
    learns=("train",),
    method="holdout",
    why="does best in 5 folds",
    tried=[
        Tried(candidate=UNTOUCHED, mrr=0.31, above=0.0, error=0.0),
        Tried(candidate=GIVEN, mrr=0.42, above=0.11, error=0.03),
    ],
)
FUNNEL = [FunnelStage(name="videos", found=14, kept=12, dropped={"private": 2})]


def picture(workspace: Workspace, name: str = "a.png", size: tuple[int, int] = (64, 36)) -> str:
    Image.new("RGB", size, "red").save(workspace.root / name)
    return name


def example(video_id: str, title: str = "A title", image: str = "a.png") -> Example:
    return Example(
        id=video_id, title=title, thumbnails={}, split="test", title_neg=None, image=image
    )


def answer(video_id: str, split: str, rank: int, chosen: str = "Chosen") -> Prediction:
    return Prediction(
        split=split,
        video_id=video_id,
        rank=rank,
        similarity=0.1,
        top_title=chosen,
        top_similarity=0.9,
    )


def miss(workspace: Workspace, title: str, chosen: str) -> Miss:
    return Miss(example("v", title, picture(workspace)), answer("v", "test", 7, chosen))


def evaluation(recall: float, predictions: Table | None = None) -> Evaluation:
    split = SplitEvaluation(
        rows=12,
        metrics={"Recall@1": recall, "median_rank": 2.0, "text-to-image_Recall@1": 0.25},
        intervals={"Recall@1": (recall - 0.1, recall + 0.1)},
        chance={"Recall@1": 1 / 12},
    )
    return Evaluation(
        model=ModelReference(name="base", path="/models/base", fingerprint="f"),
        splits=dict.fromkeys(("train", "valid", "test"), split),
        predictions=predictions or Table(path="p", fingerprint="f", rows=36),
    )


def trained(folder: Path = Path("/models")) -> TrainedModel:
    return TrainedModel(
        model=ModelReference(name="m", path=str(folder / "model"), fingerprint="f"),
        fingerprint="f",
        trainable=TrainableParameters(total=1000, trainable=10, names=["projection.weight"]),
        trained_on="the frozen towers’ outputs, run once and stored",
        recipe=PLAN.candidate.told,
        pairs=9,
        history=HISTORY,
        best_epoch=2,
        seconds=3,
    )


def stored(workspace: Workspace, titles: list[str], recall: float = 0.75) -> tuple[Any, ...]:
    """Arguments of `write_report` whose files lie in the workspace; every thumbnail is missed."""
    picture(workspace)
    rows = [example(f"v{n}", title) for n, title in enumerate(titles)]
    answers = [answer(row.id, "test", 2, chosen="Chosen | instead") for row in rows]
    (workspace.root / "models" / "key" / "model").mkdir(parents=True, exist_ok=True)
    return (
        workspace,
        PARAMETERS,
        FUNNEL,
        workspace.write_table("examples", rows),
        PLAN,
        trained(workspace.root / "models" / "key"),
        evaluation(0.5),
        evaluation(0.625),
        evaluation(recall, workspace.write_table("predictions", answers)),
    )


@flow
def reported(*arguments: Any) -> Report:
    return Stages(arguments[0], refresh=False).run(
        write_report, *arguments, ["int8 was tried."], BECAME
    )


def page(workspace: Workspace, misses: list[Miss]) -> str:
    rows = [miss.example for miss in misses]
    answers = workspace.write_table("predictions", [miss.prediction for miss in misses])
    figures = (PLAN, trained(), evaluation(0.5), evaluation(0.625), evaluation(0.75, answers))
    return report_html(workspace, PARAMETERS, FUNNEL, rows, *figures, misses, CURVES)


class Tags(HTMLParser):
    """The tags of a page, the addresses that it asks for or leads to, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        asked = [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "a":
            self.links += asked
        else:
            self.sources += asked

    def handle_data(self, data: str) -> None:
        self.text += data


def opened(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image


def test_the_page_shows_before_after_interval_chance_and_the_funnel(workspace: Workspace) -> None:
    text = Tags(page(workspace, [])).text
    for part in ("0.500", "0.750", "0.65–0.85", "0.083", "+0.250", "2 private", "1.00 %"):
        assert part in text
    assert "14 found, 12 kept" in text
    assert "projection.weight" in text
    assert 'SentenceTransformer("model")' in text
    assert "epoch 2 of 2" in text
    assert all(f"{split} · 12 videos" in text for split in ("train", "valid", "test"))


@pytest.mark.compatibility
def test_the_page_needs_no_other_file(workspace: Workspace) -> None:
    html = page(workspace, [miss(workspace, "a", "b")])
    tags = Tags(html)
    sources, watch = tags.sources, "https://www.youtube.com/watch?v="
    others = {link for link in tags.links if not link.startswith(("#", watch))}
    assert others == {"predictions.csv"}
    assert {link[1:] for link in tags.links if link[0] == "#"} <= set(
        re.findall('id="(.*?)"', html)
    )
    assert (
        len(sources) == 4
    )  # the curve, wide and for a phone; the thumbnail is a miss, and far behind another title
    for source in sources:
        assert source.startswith("data:image/")
        opened(base64.b64decode(source.partition("base64,")[2]))
    assert not re.search(r"url\(|@import|https?:", html.replace(f'<a href="{watch}', ""))


def test_the_page_names_a_folder_channel_without_the_way_there(workspace: Workspace) -> None:
    parameters = TrainParameters(source="folder", channel="/home/me/videos/")
    picture(workspace)
    answers = workspace.write_table("predictions", [answer("v", "test", 1)])
    figures = (PLAN, trained(), evaluation(0.5), None, evaluation(0.75, answers))
    html = report_html(workspace, parameters, FUNNEL, [example("v")], *figures, [], CURVES)
    assert "CLIP, adapted to videos" in Tags(html).text


NASTY = st.sampled_from(
    [
        "<script>alert(1)</script> & \"'",
        "日本語のタイトル",
        "🔥" * 40,
        "עברית",
        "w" * 400,
        "\n\t ",
        "\x00",
    ]
)


def lines_as_on_a_page(text: str) -> str:
    """With the ends of lines as whoever reads HTML makes them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(title=NASTY | st.text(), chosen=NASTY | st.text())
def test_any_title_is_shown_as_text_and_breaks_neither_page_nor_picture(
    workspace: Workspace, title: str, chosen: str
) -> None:
    misses = [miss(workspace, title, chosen)]
    tags = Tags(page(workspace, misses))
    assert tags.names == Tags(page(workspace, [miss(workspace, "", "")])).names
    shown = lines_as_on_a_page(tags.text)
    assert all(lines_as_on_a_page(text) in shown for text in (title, chosen))
    sheet = opened(miss_sheet(workspace, misses))
    assert sheet.size == opened(miss_sheet(workspace, [miss(workspace, "a", "b")])).size


def test_the_misses_are_those_of_test_the_worst_first() -> None:
    answers = [
        answer("a", "test", 2),
        answer("b", "test", 9),
        answer("c", "test", 1),
        answer("d", "train", 50),
        answer("e", "valid", 50),
    ]
    rows = [example(video_id) for video_id in "abcde"]
    assert [m.example.id for m in worst_misses(rows, answers)] == ["b", "a"]
    assert [m.example.id for m in worst_misses(rows, answers, most=1)] == ["b"]


def test_without_a_miss_on_test_those_of_valid_are_shown(workspace: Workspace) -> None:
    picture(workspace)
    rows = [example(video_id) for video_id in "ab"]
    misses = worst_misses(rows, [answer("a", "test", 1), answer("b", "valid", 3)])
    assert [m.example.id for m in misses] == ["b"]
    assert "Worst misses on the valid split" in Tags(page(workspace, misses)).text


def test_a_model_without_a_miss_gets_a_page_and_a_sheet_too(workspace: Workspace) -> None:
    assert worst_misses([example("a")], [answer("a", "test", 1)]) == []
    assert misses_heading(None) in Tags(page(workspace, [])).text
    assert opened(miss_sheet(workspace, [])).height < THUMBNAIL[1]


def test_pictures_are_shown_whole_without_their_letterbox(workspace: Workspace) -> None:
    boxed = Image.new("RGB", (480, 360), "black")
    boxed.paste((0, 0, 255), (0, 45, 480, 315))
    boxed.paste((255, 255, 255), (0, 45, 20, 315))
    boxed.save(workspace.root / "boxed.png")
    row = example("v", image="boxed.png").model_copy(update={"crop": (0, 45, 480, 315)})
    pixels = np.asarray(opened(thumbnail_jpeg(workspace, row)))
    assert pixels.shape == (THUMBNAIL[1], THUMBNAIL[0], 3)
    assert pixels[..., 2].min() > 200  # no black bar
    assert pixels[:, 5, 0].min() > 200  # the white edge on the left
    assert pixels[:, -5, 0].max() < 50


def test_the_sheet_leaves_out_what_its_font_cannot_show(workspace: Workspace) -> None:
    plain = miss_sheet(workspace, [miss(workspace, "A title", "Ünï")])
    assert miss_sheet(workspace, [miss(workspace, "A \U0001f525 title", "Ünï\x01")]) == plain
    assert miss_sheet(workspace, [miss(workspace, "A title", "Uni")]) != plain


@pytest.mark.parametrize("title", ["w" * 400, "many words " * 40, "W" * 60 + " w"])
def test_a_long_title_stays_inside_its_card(workspace: Workspace, title: str) -> None:
    pixels = np.asarray(opened(miss_sheet(workspace, [miss(workspace, title, title)])))
    card = pixels[HEADER + 20 : -GAP - 3, GAP : GAP + CARD[0]]
    assert card[:, 3 - PAD : -3].min() > 240  # nothing is written on the right margin
    assert card[-5:, PAD:-PAD].min() > 240  # nor below


def test_the_sheet_stays_below_a_megabyte_however_busy_its_pictures(workspace: Workspace) -> None:
    Image.effect_noise((480, 270), 100).save(workspace.root / "noise.png")
    misses = [Miss(example("v", image="noise.png"), answer("v", "test", 3))] * 12
    assert len(miss_sheet(workspace, misses)) < 1_000_000


@pytest.mark.slow
def test_the_curve_shows_which_epoch_was_kept() -> None:
    assert [opened(curve).size for curve in CURVES] == [(1280, 512), (720, 960)]
    assert loss_curve(HISTORY, 1) != loss_curve(HISTORY, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "history",
    [[], [LossPoint(epoch=1, train_loss=1.0)], [LossPoint(epoch=1, train_loss=float("nan"))]],
)
@pytest.mark.filterwarnings("error")
def test_the_curve_is_drawn_however_short_or_broken_the_training(history: list[LossPoint]) -> None:
    assert opened(loss_curve(history, 0)).size == (1280, 512)


@pytest.mark.slow
def test_curves_drawn_in_threads_do_not_mix() -> None:
    epochs = [1, 2] * 6
    alone = {epoch: loss_curve(HISTORY, epoch) for epoch in (1, 2)}
    with ThreadPoolExecutor(6) as pool:
        drawn = pool.map(lambda epoch: loss_curve(HISTORY, epoch), epochs)
    assert list(drawn) == [alone[epoch] for epoch in epochs]


def test_metrics_are_named_as_in_the_article() -> None:
    metrics = metrics_json(
        PLAN, trained(), evaluation(0.636), evaluation(0.7), evaluation(0.909), FUNNEL
    )
    assert metrics["article"]["yt-title-thumbnail-test_Recall@1"] == 0.7
    assert metrics["untouched"]["yt-title-thumbnail-valid_Recall@1"] == 0.636
    assert metrics["fine_tuned"]["yt-title-thumbnail-valid_Recall@1"] == 0.909
    assert metrics["chance"]["yt-title-thumbnail-test_Recall@1"] == 1 / 12
    assert metrics["trainable_parameters"]["share"] == 0.01
    assert metrics["data_funnel"][0]["found"] == 14


def test_a_funnel_stage_counts_what_came_in() -> None:
    table = Table(path="t", fingerprint="f", rows=7, dropped={"private": 2, "no title": 1})
    stage = FunnelStage.of("videos", table)
    assert (stage.found, stage.kept) == (10, 7)


def test_the_parameter_table_names_parameters_as_the_command_line_does() -> None:
    rows = {row["parameter"]: row["value"] for row in parameter_table(PARAMETERS)}
    assert rows["channel"] == "@tester"
    assert rows["training.epochs"] == "2"
    assert rows["training.trainable"] == "auto"
    assert rows["publish.model_repo"] == "none"
    assert len(rows) == 6 + sum(
        len(stage) for stage in PARAMETERS.model_dump().values() if isinstance(stage, dict)
    )


@pytest.mark.usefixtures("prefect_harness")
def test_a_report_lies_beside_its_model_in_whole_files(workspace: Workspace) -> None:
    report = reported(*stored(workspace, ["日本語 | <b>", "Second"]))
    folder = workspace.root / report.folder
    assert folder == workspace.root / "models" / "key"
    assert {file.name for file in folder.iterdir()} == {"model", *report.files}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["fine_tuned_95_percent"]["yt-title-thumbnail-test_Recall@1"] == [0.65, 0.85]
    misses = json.loads((folder / "misses.json").read_text())
    assert [miss["title"] for miss in misses] == ["日本語 | <b>", "Second"]
    assert TrainParameters.model_validate_json((folder / "parameters.json").read_text()) == (
        PARAMETERS
    )
    page = (folder / "report.html").read_text()
    assert "int8 was tried." in page
    assert "<b>Version 3</b>, decided on 2024-02-03: R@1 &lt; 1." in page
    opened((folder / "loss_curve.png").read_bytes())
    opened((folder / "misses.jpg").read_bytes())


@pytest.mark.usefixtures("prefect_harness")
def test_a_report_that_another_run_wrote_over_is_written_again(workspace: Workspace) -> None:
    def recall() -> float:
        metrics = json.loads((workspace.root / "models" / "key" / "metrics.json").read_text())
        return metrics["fine_tuned"]["yt-title-thumbnail-test_Recall@1"]

    for wanted in (0.75, 0.9, 0.75):
        reported(*stored(workspace, ["A title"], recall=wanted))
        assert recall() == wanted


@pytest.mark.usefixtures("prefect_harness")
def test_a_lost_file_of_a_report_shows(workspace: Workspace) -> None:
    report = reported(*stored(workspace, ["A title"]))
    assert report.is_whole(workspace)
    (workspace.root / report.folder / "misses.jpg").unlink()
    assert not report.is_whole(workspace)
