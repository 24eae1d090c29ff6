"""What a report shows, and that no title can break it."""

from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.artifacts import parameter_table
from tasks.evaluation import Evaluation, Prediction, SplitEvaluation
from tasks.figures import Miss, loss_curve, miss_sheet, worst_misses
from tasks.freezing import TrainableParameters
from tasks.models import ModelReference
from tasks.parameters import TrainParameters
from tasks.report import FunnelStage, compare, metrics_json, report_html
from tasks.thumbnails import Example
from tasks.training import LossPoint, TrainedModel
from tasks.workspace import Table, Workspace

HISTORY = [
    LossPoint(epoch=0.5, train_loss=2.0),
    LossPoint(epoch=1, train_loss=1.0),
    LossPoint(epoch=1, valid_loss=1.5, valid_mrr=0.5),
]


def evaluation(recall: float) -> Evaluation:
    split = SplitEvaluation(
        rows=12,
        metrics={"Recall@1": recall, "median_rank": 2.0},
        intervals={"Recall@1": (recall - 0.1, recall + 0.1)},
        chance={"Recall@1": 1 / 12},
    )
    model = ModelReference(name="base", path="/models/base", fingerprint="f")
    predictions = Table(path="p", fingerprint="f", rows=36)
    splits = dict.fromkeys(("train", "valid", "test"), split)
    return Evaluation(model=model, splits=splits, predictions=predictions)


@pytest.fixture
def trained() -> TrainedModel:
    return TrainedModel(
        model=ModelReference(name="m", path="/models/m", fingerprint="f"),
        fingerprint="f",
        trainable=TrainableParameters(total=1000, trainable=10, names=["projection.weight"]),
        history=HISTORY,
        best_epoch=1,
        seconds=3,
    )


def miss(workspace: Workspace, title: str, chosen: str) -> Miss:
    Image.new("RGB", (64, 36), "red").save(workspace.root / "a.png")
    example = Example(
        id="v", title=title, thumbnails={}, split="test", title_neg=None, image="a.png"
    )
    return Miss(
        example,
        Prediction(
            split="test",
            video_id="v",
            rank=7,
            similarity=0.1,
            top_title=chosen,
            top_similarity=0.9,
        ),
    )


def page(workspace: Workspace, trained: TrainedModel, misses: list[Miss]) -> str:
    return report_html(
        workspace,
        parameters=TrainParameters(channel="@tester"),
        funnel=[FunnelStage(name="videos", found=14, kept=12, dropped={"private": 2})],
        comparisons=compare(evaluation(0.5), evaluation(0.75)),
        trained=trained,
        base="base",
        misses=misses,
        curve=loss_curve(HISTORY, 1),
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_the_page_shows_before_after_interval_chance_and_the_funnel(
    workspace: Workspace, trained: TrainedModel
) -> None:
    text = parsed(page(workspace, trained, [])).text
    for part in ("0.500", "0.750", "0.65–0.85", "0.083", "+0.25", "2 private", "1.00 %"):
        assert part in text


def test_the_page_needs_no_other_file(workspace: Workspace, trained: TrainedModel) -> None:
    sources = parsed(page(workspace, trained, [miss(workspace, "a", "b")])).sources
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(title=st.one_of(st.text(), st.just("<script>alert(1)</script> & \"'")), chosen=st.text())
def test_any_title_is_shown_as_text_and_breaks_neither_page_nor_picture(
    workspace: Workspace, trained: TrainedModel, title: str, chosen: str
) -> None:
    misses = [miss(workspace, title, chosen)]
    html = page(workspace, trained, misses)
    assert parsed(html).names == parsed(page(workspace, trained, [miss(workspace, "", "")])).names
    with Image.open(BytesIO(miss_sheet(workspace, misses))) as sheet:
        sheet.load()


def test_the_misses_are_those_of_test_the_worst_first(workspace: Workspace) -> None:
    def answer(video_id: str, split: str, rank: int) -> Prediction:
        return Prediction(
            split=split,
            video_id=video_id,
            rank=rank,
            similarity=0.0,
            top_title="t",
            top_similarity=0.5,
        )

    answers = [
        answer("a", "test", 2),
        answer("b", "test", 9),
        answer("c", "test", 1),
        answer("d", "train", 50),
    ]
    examples = [
        Example(id=i, title=i, thumbnails={}, split="test", title_neg=None, image="")
        for i in "abcd"
    ]
    assert [m.example.id for m in worst_misses(examples, answers)] == ["b", "a"]


def test_metrics_are_named_as_in_the_article(trained: TrainedModel) -> None:
    metrics = metrics_json(trained, evaluation(0.636), evaluation(0.909), [])
    assert metrics["untouched"]["yt-title-thumbnail-valid_Recall@1"] == 0.636
    assert metrics["fine_tuned"]["yt-title-thumbnail-valid_Recall@1"] == 0.909
    assert metrics["chance"]["yt-title-thumbnail-test_Recall@1"] == 1 / 12
    assert metrics["trainable_parameters"]["share"] == 0.01


def test_a_funnel_stage_counts_what_came_in(tmp_path: Path) -> None:
    table = Table(path="t", fingerprint="f", rows=7, dropped={"private": 2, "no title": 1})
    stage = FunnelStage.of("videos", table)
    assert (stage.found, stage.kept) == (10, 7)


def test_the_parameter_table_names_parameters_as_the_command_line_does() -> None:
    rows = {
        row["parameter"]: row["value"] for row in parameter_table(TrainParameters(channel="@a"))
    }
    assert rows["channel"] == "@a"
    assert rows["training.epochs"] == "2"
    assert len(rows) == 6 + sum(
        len(stage)
        for stage in TrainParameters(channel="@a").model_dump().values()
        if isinstance(stage, dict)
    )
