"""`thumbtune doctor`: each line is true, and says what mends it."""

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from typer.testing import CliRunner

from tests.youtube_server import YouTubeServer
from thumbtune.app.cli import app
from thumbtune.app.doctor import Check, _unfit, examine
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.slow


def lines(place: Path | str, model: str = "sample") -> dict[str, Check]:
    return {check.name: check for check in examine(str(place), model)}


def test_of_a_key_that_works_it_tells_the_units_that_are_left(
    youtube: YouTubeServer, workspace: Workspace
) -> None:
    youtube.add_channel([], handle="@youtube")
    assert lines(workspace.root)["key"] == Check(
        name="key",
        state="ok",
        told="YouTube takes YOUTUBE_API_KEY; 9,999 of 10,000 quota units are left today, as "
        f"counted in {workspace.root}",
    )
    assert youtube.units == 1
    assert "9,998 of 10,000" in lines(workspace.root)["key"].told


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("API_KEY_HTTP_REFERRER_BLOCKED", "restricted to web pages"),
        ("API_KEY_INVALID", "Set YOUTUBE_API_KEY to a key that exists"),
        ("SERVICE_DISABLED", "Enable it for the key's project"),
    ],
)
def test_a_key_that_is_refused_is_told_with_the_mend(
    youtube: YouTubeServer, tmp_path: Path, reason: str, mend: str
) -> None:
    youtube.fail_next(403, reason)
    key = lines(tmp_path / "nothing yet")["key"]
    assert key.state == "fault"
    assert mend in key.told
    assert not (tmp_path / "nothing yet").exists()


def test_without_a_key_it_tells_where_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YOUTUBE_API_KEY", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    key = lines(tmp_path)["key"]
    assert key.state == "fault" or "Secret block" in key.told


def test_a_place_that_cannot_be_written_to_is_named(youtube: YouTubeServer, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("")
    workspace = lines(file)["workspace"]
    assert workspace.state == "fault"
    assert str(file) in workspace.told
    assert lines(tmp_path)["workspace"].state == "ok"


def test_a_model_is_here_or_is_told_to_be_downloaded(
    youtube: YouTubeServer, tmp_path: Path
) -> None:
    assert lines(tmp_path)["model"].told == "sample is on this machine"
    wrong = lines(tmp_path, "./gone")["model"]
    assert (wrong.state, "gone" in wrong.told) == ("fault", True)
    other = lines(tmp_path, "owner/clip")["model"]
    assert (other.state, "the first run downloads it" in other.told) == ("note", True)


def test_a_library_of_a_version_that_breaks_is_named() -> None:
    assert _unfit(Requirement("pydantic>=2")) == ""
    assert _unfit(Requirement("pydantic<2")).endswith("which breaks: wanted <2")
    assert _unfit(Requirement("no-such-library")) == "no-such-library is not installed"
    assert _unfit(Requirement("no-such-library; extra == 'web'")) == ""


@pytest.mark.usefixtures("prefect_harness")
def test_the_prefect_server_is_asked(youtube: YouTubeServer, tmp_path: Path) -> None:
    prefect = lines(tmp_path)["prefect"]
    assert prefect.state == "ok"
    assert str(get_current_settings().api.url) in prefect.told
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        prefect = lines(tmp_path)["prefect"]
    assert prefect.state == "fault"
    assert "`prefect server start`" in prefect.told


def test_it_ends_with_1_where_a_training_would_fail(youtube: YouTubeServer, tmp_path: Path) -> None:
    youtube.fail_next(403, "API_KEY_INVALID", times=2)
    place = ["--workspace", str(tmp_path), "--model", "sample"]
    as_json = CliRunner().invoke(app, ["doctor", *place, "--json"])
    assert as_json.exit_code == 1
    assert {"versions", "key", "workspace"} <= {line["name"] for line in json.loads(as_json.stdout)}
    shown = CliRunner().invoke(app, ["doctor", *place])
    assert "✗ key" in shown.stdout
