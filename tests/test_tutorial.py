"""The notebook runs from top to bottom, and shows what it is kept with."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from prefect.settings import get_current_settings

from tests.documentation import ROOT

pytestmark = pytest.mark.usefixtures("prefect_harness")

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
NEAR = 0.1
"""By so much a figure may differ: another machine's training rounds otherwise."""


def outputs(notebook: nbformat.NotebookNode) -> list[list[Any]]:
    """Of each cell of code."""
    return [list(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: list[Any]) -> list[tuple[str, list[str]]]:
    """What a cell shows, by its kinds."""
    return [(output.output_type, sorted(output.get("data", {}))) for output in cell]


def figures(cell: list[Any]) -> list[float]:
    """The numbers that a cell prints, or has in a table."""
    text = "".join(out.get("text", "") + out.get("data", {}).get("text/html", "") for out in cell)
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


def test_the_tutorial_uses_nothing_but_the_door() -> None:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert re.findall(r"^(?:import|from) (thumbtune\S*)", code, re.MULTILINE) == ["thumbtune"]


def test_the_tutorial_runs_from_top_to_bottom_and_shows_what_it_is_kept_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    api = get_current_settings().api.url
    assert api
    monkeypatch.setenv("PREFECT_API_URL", api)  # or the notebook would wait for a server of its own
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    kept = [list(cell) for cell in outputs(notebook)]
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    _, training, measures, *_ = shown = outputs(notebook)
    assert [kinds(cell) for cell in shown] == [kinds(cell) for cell in kept]
    for now, before in ((training, kept[1]), (measures, kept[2])):
        assert figures(now)
        assert figures(now) == pytest.approx(figures(before), abs=NEAR)
    assert sum("image/png" in out.get("data", {}) for cell in shown for out in cell) == 3
