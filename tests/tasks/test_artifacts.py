"""What each run posts to the Prefect UI, read back through Prefect's client."""

import asyncio
import base64
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from tests.reporting.test_report import stored
from thumbtune.clip.freezing import TrainableParameters
from thumbtune.store.workspace import Workspace
from thumbtune.tasks.artifacts import misses_markdown, post_artifacts, trainable_row
from thumbtune.tasks.caching import Stages
from thumbtune.tasks.write_report import write_report
from thumbtune.text.escaping import for_markdown

KEYS = {
    "metrics",
    "recipe",
    "parameters",
    "data-funnel",
    "trainable-parameters",
    "loss-curve",
    "worst-misses",
}


CHANNEL = "-tester-a967e344"
"""Behind each kind: the channel's folder in the registry, in small letters."""


@flow
def posting(*arguments: Any) -> tuple[str, int]:
    """Report and post, as the train flow does; the run's id and the number of cached steps."""
    workspace, parameters, funnel, _, *figures = arguments
    stages = Stages(workspace, refresh=False)
    report = stages.run(write_report, *arguments, [], None)
    work = {"videos": "3 answers fetched, 1 unchanged", "features": "5 encoded, 9 there"}
    post_artifacts(workspace, parameters, funnel, *figures, report, work)
    return flow_run.id, stages.cached.total()


def read_artifacts(run: str) -> list[Any]:
    async def read() -> list[Any]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run)]))
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=of_run)

    return asyncio.run(read())


def artifacts_of(run: str) -> dict[str, Any]:
    """Kind → the data."""
    return {str(each.key).removesuffix(CHANNEL): each.data for each in read_artifacts(run)}


def picture_in(markdown: str) -> Image.Image:
    [data] = re.findall(r"!\[[^]]+\]\(data:image/\w+;base64,([^)]+)\)", markdown)
    with Image.open(BytesIO(base64.b64decode(data))) as image:
        image.load()
        return image


@pytest.mark.usefixtures("prefect_harness")
def test_every_run_posts_its_tables_and_pictures_also_from_the_cache(workspace: Workspace) -> None:
    arguments = stored(workspace, ["A <script> | title", "日本語 🔥"])
    first, cached_first = posting(*arguments)
    again, cached_again = posting(*arguments)
    assert (cached_first, cached_again) == (0, 1)
    artifacts = artifacts_of(first)
    assert set(artifacts) == KEYS
    assert artifacts_of(again) == artifacts

    [recall] = [row for row in json.loads(artifacts["metrics"]) if row["metric"] == "test Recall@1"]
    assert recall == {
        "metric": "test Recall@1",
        "untouched": "0.500 (0.40–0.60)",
        "article": "0.625 (0.53–0.72)",
        "fine-tuned": "0.750 (0.65–0.85)",
        "chance": "0.083",
    }
    assert json.loads(artifacts["data-funnel"]) == [
        {
            "stage": "videos",
            "found": 14,
            "kept": 12,
            "left out": "2 private",
            "in this run": "3 answers fetched, 1 unchanged",
        },
        {"stage": "features", "in this run": "5 encoded, 9 there"},
    ]
    assert json.loads(artifacts["trainable-parameters"]) == [
        {
            "total": "1,000",
            "trainable": "10",
            "share": "1.00%",
            "why": "named",
            "names": "projection.weight",
        }
    ]
    assert {"parameter": "seed", "value": "42"} in json.loads(artifacts["parameters"])
    assert picture_in(artifacts["loss-curve"]).size == (1280, 512)
    assert picture_in(artifacts["worst-misses"]).width == 1256
    assert "日本語 🔥" in artifacts["worst-misses"]
    assert "<script>" not in MarkdownIt().enable("table").render(artifacts["worst-misses"])


def test_a_run_without_a_miss_says_so(tmp_path: Path) -> None:
    (tmp_path / "misses.json").write_text("[]")
    assert misses_markdown(tmp_path) == "# No misses: every thumbnail finds its own title"


def cells(row: str) -> list[str]:
    """The text of a table row as a markdown reader sees it, with nothing but text inside."""
    tokens = MarkdownIt().enable("table").parse(f"| a | b |\n| --- | --- |\n{row}")
    found = [token for token in tokens if token.type == "inline"][2:]
    assert {part.type for cell in found for part in cell.children or []} <= {"text", "text_special"}
    return ["".join(part.content for part in cell.children or []) for cell in found]


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "))
MARKDOWN = st.sampled_from(
    ["<script>x</script>", "a | b", "`c`", "[l](http://x)", "# h", "![i](x)", "&amp;", "\\|", "a\\"]
)


@given(title=MARKDOWN | PRINTABLE, other=MARKDOWN | PRINTABLE)
def test_any_title_reads_letter_by_letter_in_a_markdown_table(title: str, other: str) -> None:
    assert cells(f"| {for_markdown(title)} | {for_markdown(other)} |") == [
        " ".join(title.split()),
        " ".join(other.split()),
    ]


@given(title=st.text())
def test_a_title_never_leaves_its_line(title: str) -> None:
    assert len(f"| {for_markdown(title)} |".splitlines()) == 1


def test_of_many_trained_parameters_the_first_are_named() -> None:
    names = [f"layer.{n}" for n in range(20)]
    row = trainable_row(TrainableParameters(total=20, trainable=20, names=names))
    assert row["names"].endswith("layer.7 and 12 more")
