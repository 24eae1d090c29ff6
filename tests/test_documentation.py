"""Every command of README.md, CONTRIBUTING.md, SECURITY.md and docs/ is run, or held to --help.

A fresh copy of the project with an empty home runs, as written, what needs no network. What needs
a network, a key, a bucket, a cluster or a server of its own is held to `--help`: the program is
there, and it has each option. Of these, real runs are elsewhere: Prefect's server, work pool,
deployments and worker in prefect_server.py, `thumbtune web` in test_web.py, the flows on a stand-in
for YouTube in test_train_flow.py, test_sweep.py and test_retraining.py, workspaces in a bucket in
test_object_storage.py, Dask and Ray in test_runners.py; `make train` and `make test` whole, with
the set-up and a Prefect server of its own, and each benchmark's `--quick` in .ci/run. A command
that fits no rule fails.
"""

import fnmatch
import re
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from packaging.requirements import Requirement
from prefect.settings import PREFECT_API_URL

from tests.documentation import (
    PAGES,
    ROOT,
    STATE,
    Command,
    anchors,
    commands,
    links,
    options,
    shown,
    split,
)
from tests.fresh_clone import Clone

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("prefect_harness")]

EVERY_COMMAND = [command for page in PAGES for command in commands(page)]
COMMANDS = sorted(
    {command.programs: command for command in reversed(EVERY_COMMAND)}.values(),
    key=EVERY_COMMAND.index,
)
"""Each once, where it comes first."""
MATCH = ("thumbtune", "match")
PLACEHOLDER = re.compile(r"…|://")
NOT_OURS = {"apt", "curl", "docker", "yt-dlp"}
"""Programs that neither the project nor its environment brings."""


def kind(command: Command) -> str:
    """How a command is tested."""
    programs = [words for words in command.programs if words[0] not in STATE]
    if not programs:
        return "state"
    [program, *arguments], *others = programs
    has_placeholder = PLACEHOLDER.search(" ".join(arguments))
    match Path(program).name, arguments:
        case _ if others:
            return "unknown"
        case ("make", ["train"]) | ("python", ["-c", _]) | ("python", ["docs/parameters.py"]):
            return "run"
        case "make", [_]:
            return "make"
        case "pip", ["install", _]:
            return "extras"
        case name, _ if name in NOT_OURS:
            return "not ours"
        case ("thumbtune", ["models"] | ["runs", *_]) | (
            "thumbtune",
            ["match" | "search" | "index", _, *_],
        ):
            return "help" if has_placeholder else "run"
        case "thumbtune" | "prefect" | "dask" | "ray" | "mlflow", [_, *_]:
            return "help"
        case "python", ["-m", _, *_]:
            return "help"
        case ("python", [script, *_]) | (script, [_, *_]) if script.endswith(".py"):
            return "help"
    return "unknown"


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    found = [command for command in COMMANDS if kind(command) in kinds]
    return pytest.mark.parametrize("command", found, ids=str)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Its runs report to the session's Prefect server; that they start one `.ci/run` shows."""
    place = tmp_path_factory.mktemp("fresh")
    settings = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "HF_HUB_OFFLINE": "1"}
    return Clone(place / "clone", place / "home", OMP_NUM_THREADS="1", **settings)


@pytest.fixture(scope="module")
def training(clone: Clone) -> str:
    """What `make train` prints."""
    done = clone.run("make train", timeout=560)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


Done = subprocess.CompletedProcess[str]
Answer = Callable[..., Done]
ACTIVATED = ("source .venv/bin/activate",)


@pytest.fixture(scope="module")
def answer(clone: Clone) -> Answer:
    """The answer of a line as it is written, run once."""
    return cache(lambda line, before=ACTIVATED: clone.run(line, before))


FLOWS = ("train", "sweep", "watch", "demo")
SUBCOMMANDS = ("match", "search", "index", "models", "runs", "rollback", "shrink", "web", "deploy")
SUBCOMMANDS += ("doctor", "serve")
SCRIPTS = sorted(
    str(file.relative_to(ROOT))
    for folder in ("benchmarks", "docs", "flows", "sample")
    for file in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in file.read_text()
)
TAKES_WORDS = {"prefect": 3, "dask": 2, "ray": 2, "mlflow": 2, "thumbtune": 2, "python": 2}


def help_of(command: Command) -> str:
    """The line that asks a command's program, or its subcommand, for help."""
    program, *arguments = command.words
    if program.endswith(".py"):
        return f"python {program} {'--help-all' if program.startswith('flows/') else '--help'}"
    name = Path(program).name
    if name == "thumbtune" and arguments[0] in FLOWS:
        return f"thumbtune {arguments[0]} --help-all"
    if name == "python" and arguments[0] == "-m":
        return f"python -m {arguments[1]} --help"
    words = [word for word in arguments if not word.startswith("-")]
    if name == "prefect" and words[0] == "deploy":
        words = words[:1]
    return shlex.join([name, *words[: TAKES_WORDS[name] - 1], "--help"])


def named_options(words: tuple[str, ...]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def offered(text: str) -> set[str]:
    return set(re.findall(r"--[a-zA-Z][\w.-]*", text))


def test_every_command_is_known() -> None:
    assert [str(command) for command in COMMANDS if kind(command) == "unknown"] == []
    assert {kind(command) for command in COMMANDS} >= {"run", "help", "make", "state", "extras"}


@of_kind("run")
def test_what_needs_no_network_runs_as_written(
    command: Command, answer: Answer, training: str
) -> None:
    if command.words == ("make", "train"):
        assert "Recall@1 of all videos" in training
        return
    done = answer(command.line, command.before)
    assert done.returncode == 0, done.stdout + done.stderr


@of_kind("help")
def test_the_rest_names_a_program_that_is_there_and_options_that_it_has(
    command: Command, answer: Answer
) -> None:
    done = answer(help_of(command))
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(named_options(command.words)) <= offered(done.stdout)


@of_kind("make")
def test_every_target_of_make_is_there(command: Command, clone: Clone) -> None:
    done = clone.run(f"make --dry-run {command.words[1]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout


@of_kind("extras")
def test_what_pip_is_to_install_is_an_extra(command: Command) -> None:
    wanted = Requirement(command.words[2])
    assert wanted.name == "thumbtune"
    assert wanted.extras <= set(metadata("thumbtune").get_all("Provides-Extra") or ())


@of_kind("not ours")
def test_programs_of_others_are_named_where_they_are_used(command: Command) -> None:
    uses = {
        "apt": ".ci/run",
        "curl": ".ci/run",
        "docker": "compose.yaml",
        "yt-dlp": "thumbtune/channel/sources/folder/listing.py",
    }
    text = (ROOT / uses[command.words[0]]).read_text()
    assert command.words[0] in text
    if command.words[0] == "docker":
        assert {"server", "worker"} <= set(yaml.safe_load(text)["services"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_are_named_alone_exist(page: Path, answer: Answer) -> None:
    helps = [f"thumbtune {name} --help" for name in SUBCOMMANDS]
    helps += [f"thumbtune {name} --help-all" for name in FLOWS]
    helps += [f"python {script} --help" for script in SCRIPTS]
    known = set().union(*(offered(answer(line).stdout) for line in helps))
    for code in options(page):
        for option in named_options(tuple(code.split())):
            start = option.partition("…")[0]
            fits = option in known or ("…" in option and any(k.startswith(start) for k in known))
            assert fits, f"{page.name}: {option}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_answers_help_and_does_nothing_else(
    script: str, answer: Answer, clone: Clone
) -> None:
    done = answer(f"python {script} --help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith("usage:")
    assert (clone.folder / script).read_text() == (ROOT / script).read_text()


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.startswith("benchmarks/")])
def test_a_benchmark_answers_help_before_it_loads_torch(
    script: str, clone: Clone, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = clone.run(f"PYTHONPATH={shlex.quote(str(tmp_path))} .venv/bin/python {script} --help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--quick" in done.stdout


TARGETS = ("train", "test", "test-whole", "bench-quick")


def test_ci_runs_what_the_readme_begins_with_and_each_benchmark(clone: Clone) -> None:
    ci = (ROOT / ".ci/run").read_text()
    assert all(f"make {target}\n" in ci for target in TARGETS)
    recipe = clone.run("make --dry-run bench-quick").stdout
    for script in (name for name in SCRIPTS if name.startswith("benchmarks/")):
        assert Path(script).stem in recipe


def figures(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line)]


def agrees(promised: str, printed: str) -> bool:
    """Whether a line was printed, though a figure may differ as it does between machines."""
    blank = re.compile(r"\d+(?:\.\d+)?")
    if blank.sub("0", promised).split() != blank.sub("0", printed).split():
        return False
    pairs = zip(figures(promised), figures(printed), strict=True)
    return all(abs(a - b) <= (5 if a == int(a) else 0.05) for a, b in pairs)


@pytest.mark.parametrize("start", ["│", "Recall@1", "Model:", "Report:"])
def test_what_the_readme_shows_is_what_is_printed(
    start: str, answer: Answer, training: str
) -> None:
    promised = [line for line in shown(ROOT / "README.md") if line.startswith(start)]
    assert promised
    examples = [c for c in COMMANDS if c.page == "README.md" and c.words[:2] == MATCH]
    printed = training.splitlines()
    for command in examples:
        printed += answer(command.line, command.before).stdout.splitlines()
    for line in promised:
        if start in ("Model:", "Report:"):  # …/models/<a hash>/model      what it is good for
            pattern = re.sub(r"\b[0-9a-f]{16}\b|…", "*", re.split(r" {3,}", line)[0])
            assert any(fnmatch.fnmatch(other, pattern) for other in printed), line
        else:
            assert any(agrees(line, other) for other in printed), line


def test_the_title_that_a_picture_was_made_for_wins_in_the_examples(
    answer: Answer, training: str
) -> None:
    examples = [c for c in COMMANDS if kind(c) == "run" and c.words[:2] == MATCH]
    assert examples
    for command in examples:
        titles = [word for word in command.words[3:] if not word.startswith("-")]
        done = answer(command.line, command.before)
        rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
        percentiles = [float(row.split("│")[3]) for row in rows]
        assert titles[0] in rows[0]
        assert percentiles[0] > 50 > max(percentiles[1:])


def test_a_training_ends_with_the_commands_to_run_next(
    training: str, clone: Clone, tmp_path: Path
) -> None:
    """They run from any folder and in a shell where nothing is activated."""
    told = training.partition("Put it to use:\n")[2].partition("For your own")[0].splitlines()
    match, search, web = (line.strip() for line in told)
    first = clone.run(match, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = [line for line in first.stdout.splitlines() if line.startswith("│")]
    [[_, _, _, title, *_]] = split(match)
    assert title in rows[0]
    for line in (search, web):
        assert clone.run(f"{line} --help", cwd=tmp_path).returncode == 0
    assert f"{clone.folder}/.venv/bin/thumbtune train --channel @handle" in training


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"
