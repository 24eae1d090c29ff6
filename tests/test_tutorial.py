"""The notebook runs from top to bottom, and is kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from prefect.settings import get_current_settings

pytestmark = pytest.mark.usefixtures("prefect_harness")

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"


def test_the_tutorial_runs_from_top_to_bottom_and_shows_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    api = get_current_settings().api.url
    assert api
    monkeypatch.setenv("PREFECT_API_URL", api)  # or the notebook would wait for a server of its own
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)

    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    _, training, measures, titles, search = code
    printed = "".join(output.get("text", "") for output in training.outputs)
    assert "Recall@1 on test: 0.302 untouched → 0." in printed
    pictures = [
        sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in (measures, titles, search)
    ]
    assert pictures == [1, 1, 1]
    [table] = [o.data["text/plain"] for o in measures.outputs if o.output_type == "execute_result"]
    assert "fine-tuned" in table
