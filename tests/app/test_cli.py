"""The command line `thumbtune`, as a creator starts it."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.channel.test_registry import add
from tests.data.test_thumbnails import encoded, picture
from tests.forks import Script
from tests.small_channel import add_version
from thumbtune.app.cli import WORKSPACE, app
from thumbtune.channel.field_scores import FieldScore, keep_score
from thumbtune.channel.registry import Registry, Version
from thumbtune.commands import DEFAULT_WORKSPACE
from thumbtune.data.thumbnails import Example
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace
from thumbtune.use.matching import Matcher

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    registry = Registry(workspace, "youtube", "@tester")
    for n in (1, 2):
        add(registry, n, workspace)
        registry.decide(n, 1, "promoted" if n == 1 else "kept, not promoted: it is worse")
    return registry


@pytest.fixture
def image(tmp_path: Path) -> str:
    file = tmp_path / "my picture.jpg"
    file.write_bytes(encoded(picture()))
    return str(file)


def thumbtune(workspace: Workspace, *arguments: str, stdin: str = "") -> Result:
    """The command in this process."""
    here = [*arguments, f"--workspace={workspace.root}"]
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, here, input=stdin)


def start_thumbtune(
    workspace: Workspace, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with next to nothing in its environment."""
    environment = {
        "COLUMNS": "120",
        "PATH": "",
        "HF_HUB_OFFLINE": "1",
        "PREFECT_HOME": str(workspace.root / "prefect"),
    }
    here = [*arguments, f"--workspace={workspace.root}"]
    return Script("thumbtune/app/cli.py", here, environment, stdin).wait()


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    told = CliRunner().invoke(app, ["--version"]).stdout
    assert told == f"thumbtune {project['project']['version']}\n"


def test_models_lists_the_versions_and_the_champion(
    registry: Registry, workspace: Workspace
) -> None:
    done = thumbtune(workspace, "models", "--channel", "@tester")
    assert done.exit_code == 0, done.stderr
    first, second = (line for line in done.stdout.splitlines() if "3" in line and "0.500" in line)
    assert "champion" in first
    assert "champion" not in second
    assert "it is worse" in done.stdout
    rows = json.loads(thumbtune(workspace, "models", "--channel=@tester", "--json").stdout)
    assert [(row["version"], row["champion"], row["weights"]) for row in rows] == [
        (1, True, True),
        (2, False, True),
    ]
    assert rows[0]["model"] == registry.versions()[0].model.path


def test_models_tells_among_how_many_titles_each_version_was_measured(
    version: Version, workspace: Workspace
) -> None:
    Registry(workspace, "youtube", "@tester").add(
        version.model.model_copy(update={"fingerprint": "of another"}),
        version.untouched,
        version.parameters,
        version.examples,
        [],
        [],
        {"Recall@1": 0.75},
        gallery=123.4,
    )
    shown = thumbtune(workspace, "models", "--channel", "@tester").stdout
    of_an_earlier_thumbtune, new = (
        line for line in shown.splitlines() if "0.500" in line or "0.750" in line
    )
    assert "–" in of_an_earlier_thumbtune
    assert "123" in new
    rows = json.loads(thumbtune(workspace, "models", "--channel=@tester", "--json").stdout)
    assert [row["titles"] for row in rows] == [None, 123.4]


def test_models_tells_how_a_champion_does_on_later_videos(
    registry: Registry, workspace: Workspace
) -> None:
    keep_score(
        registry,
        FieldScore.model_validate(
            {
                "number": 1,
                "version": 1,
                "at": "2026-01-01T00:00:00Z",
                "videos": ["a", "b"],
                "gallery": 10,
                "metrics": {"MRR": 0.4},
                "intervals": {"MRR": (0.3, 0.45)},
                "promised": {"MRR": 0.5},
            }
        ),
    )
    done = thumbtune(workspace, "models", "--channel", "@tester")
    told = "in the field: MRR 0.400 (95 % 0.300 to 0.450) on 2 later videos, each among 10 titles; "
    told += "when it was trained 0.500, which it no longer reaches"
    assert told in " ".join(done.stdout.split())
    rows = json.loads(thumbtune(workspace, "models", "--channel=@tester", "--json").stdout)
    assert rows[0]["field"]["has_drifted"]
    assert rows[1]["field"] is None


def test_runs_are_compared_by_what_differs_with_their_intervals(
    version: Version, workspace: Workspace
) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    longer = version.parameters.training.model_copy(update={"epochs": 9})
    with_intervals = registry.add(
        version.model.model_copy(update={"fingerprint": "of another"}),
        version.untouched,
        version.parameters.model_copy(update={"training": longer}),
        version.examples,
        [],
        [],
        {"Recall@1": 0.75, "MRR": 0.8},
        gallery=12.0,
        intervals={"Recall@1": (0.5, 0.9)},
    )
    done = thumbtune(workspace, "runs", "--channel", "@tester", "--compare")
    rows = {
        cells[0]: cells[1:]
        for line in done.stdout.splitlines()
        if line.startswith("│")
        for cells in [[cell.strip() for cell in line.strip("│").split("│")]]
    }
    assert rows == {
        "among so many titles": ["–", "12"],
        "Recall@1": ["0.500", "0.750 (0.500–0.900)"],
        "Recall@5": ["", ""],
        "MRR": ["", "0.800"],
        "training.epochs": ["2", "9"],
    }
    told = json.loads(thumbtune(workspace, "runs", "--channel", "@tester", "--json").stdout)
    assert [each["parameters"] for each in told] == [
        {"training.epochs": "2"},
        {"training.epochs": "9"},
    ]
    assert told[1]["intervals"] == {"Recall@1": [0.5, 0.9]}
    shown = thumbtune(workspace, "runs", "--channel", "@tester", "--last", "1").stdout
    assert f"Version {with_intervals.number} (" in shown
    assert "Version 1 (" not in shown


def test_rollback_makes_a_version_the_champion(registry: Registry, workspace: Workspace) -> None:
    done = thumbtune(workspace, "rollback", "2", "--channel", "@tester", "--why", "I like it")
    assert done.stdout == f"Champion of {registry.name}: version 2\n"
    last = registry.decisions()[-1]
    assert (last.champion, last.why) == (2, "I like it")


@pytest.mark.compatibility
def test_match_ranks_titles_and_holds_them_against_the_channel(
    workspace: Workspace, version: Version, image: str
) -> None:
    titles = ("A boat [bold]at night", "Ten castles")
    done = start_thumbtune(workspace, "match", image, *titles, "--untouched", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    columns = []
    for untouched, told in zip((False, True), found["models"], strict=True):
        matcher = Matcher.of_version(workspace, version, untouched)
        assert told == {"name": matcher.name, "typical": pytest.approx(matcher.typical)}
        columns.append(matcher.rank_titles(matcher.read_picture(image), titles))
    assert [row["title"] for row in found["titles"]] == [fit.title for fit in columns[0]]
    for row, fit in zip(found["titles"], columns[0], strict=True):
        assert row["cosine"] == pytest.approx(fit.cosine, abs=1e-5)
        assert (row["percentile"], row["rank"], row["of"]) == (fit.percentile, fit.rank, fit.of)
        [before] = (other for other in columns[1] if other.title == fit.title)
        assert row["untouched"]["rank"] == before.rank

    shown = thumbtune(workspace, "match", image, *titles).stdout
    assert "A boat [bold]at night" in shown
    assert f"{columns[0][0].cosine:.3f}" in shown
    assert f"{columns[0][0].rank}/{columns[0][0].of}" in shown
    assert "The channel's own pairs by @tester, version 1: cosine " in shown


def test_titles_come_from_a_file_or_from_standard_input_too(
    workspace: Workspace, image: str, tmp_path: Path
) -> None:
    file = tmp_path / "titles.txt"
    file.write_text("one\n\n  zwei für drei \n", encoding="utf-8")
    by_model = ("match", image, "first", "--model", "sample", "--json", "--titles")
    from_file = thumbtune(workspace, *by_model, str(file))
    from_stdin = start_thumbtune(workspace, *by_model, "-", stdin=file.read_text())
    for done in (from_file, from_stdin):
        found = json.loads(done.stdout)
        assert {row["title"] for row in found["titles"]} == {"first", "one", "zwei für drei"}
        assert found["models"] == [{"name": "sample", "typical": None}]
        assert found["titles"][0]["percentile"] is None


@pytest.mark.compatibility
@pytest.mark.usefixtures("version")
def test_search_finds_the_channels_pictures_by_words_and_by_a_picture(
    workspace: Workspace,
) -> None:
    done = start_thumbtune(workspace, "search", "a castle", "--top", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert not (workspace.root / "prefect" / "prefect.db").exists()  # no server was needed
    hits = json.loads(done.stdout)
    assert len(hits) == 3
    assert [hit["cosine"] for hit in hits] == sorted((h["cosine"] for h in hits), reverse=True)
    [same] = json.loads(
        thumbtune(workspace, "search", "--image", hits[1]["image"], "--top=1", "--json").stdout
    )
    assert (same["id"], same["cosine"]) == (hits[1]["id"], pytest.approx(1, abs=1e-5))
    shown = thumbtune(workspace, "search", "a castle", "--top", "3").stdout
    assert f"{hits[0]['cosine']:.3f}" in shown
    assert "3 of 40 pictures by @tester, version 1" in shown


@pytest.mark.usefixtures("version")
def test_a_folder_is_indexed_once_and_then_searched(
    workspace: Workspace, image: str, tmp_path: Path
) -> None:
    (tmp_path / "library").mkdir()
    Path(image).rename(tmp_path / "library" / "red car.jpg")
    (tmp_path / "library" / "bad.jpg").write_bytes(b"bad")
    folder = str(tmp_path / "library")
    shown = thumbtune(workspace, "index", folder).stdout
    assert "1 pictures indexed by @tester, version 1: 1 added, 0 removed\n" in shown
    assert "Left out: 1 (not a JPEG, PNG, WebP or GIF picture)" in shown
    again = json.loads(thumbtune(workspace, "index", folder, "--json").stdout)
    assert (again["pictures"], again["added"]) == (1, 0)
    done = thumbtune(workspace, "search", "anything", "--folder", folder, "--json")
    assert [hit["title"] for hit in json.loads(done.stdout)] == ["red car"]
    whole = json.loads(thumbtune(workspace, "index", "--json").stdout)
    assert (whole["pictures"], whole["added"]) == (40, 40)
    by_model = thumbtune(workspace, "index", folder, "--model", "sample", "--json")
    assert json.loads(by_model.stdout)["added"] == 1


@pytest.mark.usefixtures("version")
def test_deleted_pictures_of_an_indexed_folder_are_not_shown(
    workspace: Workspace, image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    Path(image).rename(folder / "a.jpg")
    (folder / "b.jpg").write_bytes(encoded(picture(seed=5)))
    thumbtune(workspace, "index", str(folder))
    (folder / "a.jpg").unlink()
    done = thumbtune(workspace, "search", "anything", "--folder", str(folder), "--json")
    assert [hit["title"] for hit in json.loads(done.stdout)] == ["b"]
    assert (
        f"Left out, since the index was made: 1 gone; `thumbtune index {folder}` br" in done.stderr
    )
    (folder / "b.jpg").unlink()
    none = thumbtune(workspace, "search", "anything", "--folder", str(folder))
    assert none.exit_code == 1
    assert none.stderr.startswith("thumbtune: None of the 2 indexed pictures is as it was (2 gone)")


@pytest.mark.usefixtures("matcher")  # it has stored the features
def test_deleted_pictures_of_the_channel_are_not_shown(
    workspace: Workspace, version: Version
) -> None:
    first = workspace.read_table(version.examples, Example)[0]
    (workspace.root / first.image).unlink()
    done = thumbtune(workspace, "search", "anything", "--top=99", "--json")
    assert len(json.loads(done.stdout)) == 39
    assert "Left out, since the index was made: 1 picture gone;" in done.stderr


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("match", "gone.jpg", "a"), 1, "picture gone.jpg: cannot be read (No such file"),
        (("match", "pyproject.toml", "a"), 1, "pyproject.toml: not a JPEG, PNG, WebP or GIF"),
        (("match", "docs/flow.png", " "), 1, "titles: number 1 of 1 is empty"),
        (("match", "docs/flow.png", "--titles", "gone.txt"), 1, "--titles: gone.txt cannot be"),
        (("match", "docs/flow.png", "--titles", "docs/flow.png"), 1, "is not UTF-8"),
        (("match", "docs/flow.png"), 2, "Give a title, or --titles FILE."),
        (("match", "docs/flow.png", "a", "--model=sample", "--untouched"), 2, "leave out"),
        (("match", "docs/flow.png", "a", "--model", "docs"), 1, "the folder docs holds no model"),
        (("search",), 2, "Give either words or --image FILE."),
        (("search", "a", "--image", "docs/flow.png"), 2, "Give either words or --image FILE."),
        (("search", "a", "--top", "0"), 2, "Invalid value for '--top'"),
        (("search", "a", "--folder", "docs"), 1, "Make it with `thumbtune index` for a channel"),
        (("index", "gone"), 1, "folder: there is no folder "),
        (("search", "a", "--channel", "@nobody"), 1, "no model of @nobody in"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    done = thumbtune(workspace, *arguments)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_imports_neither_torch_nor_prefect() -> None:
    code = (
        "import sys, thumbtune.app.cli as cli\n"
        "cli.app(['match', '--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'prefect', 'thumbtune.tasks'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--titles" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert WORKSPACE == DEFAULT_WORKSPACE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "--channel", "@nobody"), "no model of @nobody in"),
        (("models", "--source", "folder"), "of: --source youtube --channel @tester."),
        (("rollback", "9"), "has no version 9; it has: 1, 2."),
        (("rollback", "nine", "--channel", "@tester"), "Invalid value for 'version'"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_a_wrong_argument_gets_a_message(
    workspace: Workspace, arguments: tuple[str, ...], message: str
) -> None:
    done = thumbtune(workspace, *arguments)
    assert done.exit_code != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


NASTY = "[red]loud[/red] [/] \x1b[2J\x9b31m\u202eback"


def test_titles_and_names_of_files_neither_command_nor_colour_the_terminal(
    workspace: Workspace, version: Version, tmp_path: Path
) -> None:
    assert version
    file = tmp_path / f"{NASTY.replace('/', '')}.jpg"
    file.write_bytes(encoded(picture()))
    shown = [thumbtune(workspace, "match", str(file), NASTY)]
    shown += [thumbtune(workspace, "match", str(tmp_path / f"gone {NASTY[:9]}\x1b[2J.jpg"), "A")]
    shown += [thumbtune(workspace, "match", "--json", str(file), NASTY)]
    assert [result.exit_code for result in shown] == [0, 1, 0], shown
    for result in shown:
        assert not set(result.output) & set("\x1b\x9b\u202e")
        assert "[red]" in result.output
    assert json.loads(shown[-1].stdout)["titles"][0]["title"] == NASTY


def test_a_models_name_that_looks_like_markup_is_shown_as_it_is(
    workspace: Workspace, tmp_path: Path
) -> None:
    add_version(workspace, count=8)
    model = shutil.copytree(MODEL, tmp_path / "[" / "red]")
    found = thumbtune(workspace, "search", "a boat", "--top=1", "--model", str(model))
    assert found.exit_code == 0, found.output
    assert "[/red]" in found.output


def test_deploy_says_in_one_sentence_that_no_server_answers() -> None:
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "thumbtune.app.cli", "deploy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "thumbtune: PREFECT_API_URL: no Prefect server answers at http://"
    )
    assert "Traceback" not in done.stderr


def test_from_python_a_wrong_parameter_is_told_before_prefect_starts(tmp_path: Path) -> None:
    code = f"import thumbtune; thumbtune.train(channel=None, workspace={str(tmp_path)!r})"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("thumbtune.errors.ParametersError: channel is missing")
    assert "Flow run" not in done.stderr
