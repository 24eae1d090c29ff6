"""A user's error is told early, in a line without a traceback, and that line comes last."""

import asyncio
import importlib
import json
import logging
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, flow, task
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from rich.console import Console

import thumbtune.flows
import thumbtune.tasks
from tests.channel.test_faults import with_body
from tests.flow_runs import newest_run
from tests.hub_server import FINE_TOKEN, READ_TOKEN, WRITE_TOKEN, HubServer, run_python
from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, error_body, make_video
from thumbtune.channel.preflight import check_publishing, check_training, check_workspace
from thumbtune.channel.secrets import MissingSecretError
from thumbtune.errors import ParametersError, SourceError, UserError
from thumbtune.flows import sweep_flow, train_flow, watch_flow
from thumbtune.flows.command_line import INTERRUPTED, exit_code
from thumbtune.flows.runners import BY_SETTING
from thumbtune.parameters import PublishParameters, TrainParameters
from thumbtune.reporting.report import FunnelStage, left_out
from thumbtune.tasks.retries import only_on
from thumbtune.tasks.secret_blocks import read_secret_early

pytestmark = pytest.mark.usefixtures("prefect_harness")

ROOT = Path(__file__).parent.parent
LINES = 15


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_clip(tmp_path_factory.mktemp("models") / "clip"))


@pytest.fixture
def options(tmp_path: Path, clip: str) -> list[str]:
    workspace = str(tmp_path / "workspace")
    arguments = ["--channel", "@tester", "--model", clip, "--negatives.text_model", clip]
    return [*arguments, "--workspace", workspace, "--training.batch_size", "8"]


@pytest.fixture
def channel(youtube: YouTubeServer) -> YouTubeServer:
    youtube.add_channel([make_video(n) for n in range(60)])
    return youtube


@pytest.fixture
def console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """What a script prints, in lines: Prefect's log goes to where stderr is now."""
    here = Console(stderr=True, markup=False, highlight=False)
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, PrefectConsoleHandler)]
    assert handlers
    for handler in handlers:
        monkeypatch.setattr(handler, "console", here)
    return lambda: "".join(capsys.readouterr()).strip().splitlines()


# --- on the command line ---


def refuse(status: int, reason: str, detail: str = "") -> Callable[[YouTubeServer], None]:
    def set_up(youtube: YouTubeServer) -> None:
        answer = with_body(error_body(status, reason, detail), status)
        youtube.faults_of["channels"].extend([answer] * 5)

    return set_up


def without_pictures(youtube: YouTubeServer) -> None:
    youtube.has_thumbnails = False


def nothing(youtube: YouTubeServer) -> None:
    """The channel is as it should be."""


ERRORS: dict[str, tuple[Callable[[YouTubeServer], None], str, str]] = {
    "a wrong key": (refuse(400, "badRequest", "API_KEY_INVALID"), "", "YOUTUBE_API_KEY"),
    "a key that is refused": (refuse(403, "forbidden"), "", "YOUTUBE_API_KEY"),
    "a wrong channel": (nothing, "--channel @nobody", "@nobody"),
    "a wrong folder": (nothing, "--source folder --channel gone", "Give an existing folder."),
    "a wrong model": (nothing, "--model ./gone", "Check the spelling"),
    "a wrong workspace": (nothing, "--workspace pyproject.toml", "choose another workspace."),
    "a wrong layer": (nothing, "--training.trainable projektion", "projektion"),
    "a quota": (nothing, "--videos.daily_quota 2", "raise videos.daily_quota."),
    "no pictures": (without_pictures, "", "raise thumbnails.max_bad_share."),
    "few videos": (nothing, "--split.min_rows 40", "split.min_rows"),
    "a training that diverges": (
        nothing,
        "--training.recipe given --training.scale 1e39",
        "training.learning_rate",
    ),
    "publishing without a token": (nothing, "--publish.model_repo me/clip", "HF_TOKEN"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_the_user_is_short_and_ends_with_the_mend(
    channel: YouTubeServer,
    options: list[str],
    console: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    error: str,
) -> None:
    set_up, arguments, mend = ERRORS[error]
    set_up(channel)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(ROOT)
    assert train_flow.main([*options, *arguments.split()]) == 1
    lines = console()
    assert len(lines) <= LINES, "\n".join(lines[:60])
    assert not [line for line in lines if "Traceback" in line]
    assert lines[-1].startswith("thumbtune: ")
    assert mend in lines[-1]


def test_verbose_brings_the_traceback_and_prefects_log(
    options: list[str], channel: YouTubeServer, console: Callable[[], list[str]]
) -> None:
    refuse(403, "forbidden")(channel)
    assert train_flow.main([*options, "--verbose"]) == 1
    told = console()
    assert any("Traceback" in line for line in told)
    assert any("Beginning flow run" in line for line in told)
    assert "YOUTUBE_API_KEY" in told[-1]


def test_an_error_that_nobody_expects_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(lambda: {}["gone"]) == 1
    assert 'in <lambda>\n    assert exit_code(lambda: {}["gone"]) == 1' in capsys.readouterr().err


def test_a_sweep_and_a_watch_are_short_too(
    options: list[str], console: Callable[[], list[str]], tmp_path: Path
) -> None:
    assert sweep_flow.main([*options, "--source", "folder", "--channel", "gone"]) == 1
    assert console()[-1].endswith("Give an existing folder.")
    assert watch_flow.main(["--channels", "gone.yaml"]) == 1
    assert "channels: gone.yaml cannot be read" in console()[-1]
    file = tmp_path / "channels.yaml"
    channels = [{"source": "folder", "channel": f"gone-{n}"} for n in range(3)]
    defaults = {"workspace": str(tmp_path)}
    file.write_text(json.dumps({"defaults": defaults, "channels": channels}))
    assert watch_flow.main(["--channels", str(file), "--start", "here"]) == 1
    lines = console()
    assert len(lines) <= LINES, "\n".join(lines[:60])
    assert "Traceback" not in "\n".join(lines)
    assert lines[-1].count("Give an existing folder.") == 3


def script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "flows" / name), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def api() -> str:
    url = get_current_settings().api.url
    assert url
    return url


def test_a_script_prints_its_error_and_nothing_else(
    options: list[str], channel: YouTubeServer
) -> None:
    without_pictures(channel)
    done = script("train_flow.py", *options, PREFECT_API_URL=api())
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) <= LINES, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[-1].startswith("thumbtune: 60 of 60 thumbnails are unusable")
    assert lines[-1].endswith("raise thumbnails.max_bad_share.")


def test_what_needs_no_server_is_told_before_one_is_started_and_pytorch_is_loaded(
    tmp_path: Path,
) -> None:
    home = tmp_path / "prefect"
    kept = {name: value for name, value in os.environ.items() if name != "YOUTUBE_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "flows/train_flow.py", "--channel", "@tester"],
        env={name: value for name, value in kept.items() if not name.startswith("PREFECT_")}
        | {"PREFECT_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 1
    assert "thumbtune: YOUTUBE_API_KEY is not set." in done.stderr.splitlines()[-1]
    assert "thumbtune.channel.preflight" in imported
    assert "torch" not in imported
    assert not (home / "prefect.db").exists()


def test_an_interrupted_run_says_so_in_a_line(
    options: list[str], channel: YouTubeServer, tmp_path: Path
) -> None:
    channel.faults_of["channels"].append(lambda request: time.sleep(60))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "flows" / "train_flow.py"), *options],
        env={**os.environ, "PREFECT_API_URL": api()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not channel.requests and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 130
    assert told.strip() == f"thumbtune: {INTERRUPTED}"


def test_a_prefect_server_that_does_not_answer_is_told_in_a_line(
    options: list[str], channel: YouTubeServer, console: Callable[[], list[str]]
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert train_flow.main(options) == 1
    lines = console()
    assert len(lines) <= LINES, "\n".join(lines[:60])
    assert lines[-1] == (
        "thumbtune: PREFECT_API_URL: no Prefect server answers at http://127.0.0.1:9/api. Start it "
        "with `prefect server start`, or unset PREFECT_API_URL."
    )


# --- in Prefect ---


class MissingThingError(UserError):
    """What these flows raise."""


SAID = 'thing: "a" is missing. Add it; 100 % of it.'


@task
def step(number: int = 2, mistake: type[Exception] = MissingThingError) -> None:
    if number == 2:
        raise mistake(SAID)


@task(retries=1, retry_condition_fn=only_on(MissingThingError))
def step_that_is_tried_again() -> None:
    raise MissingThingError(SAID)


@task(retries=1, retry_condition_fn=only_on(SourceError))
def step_that_is_not_tried_again() -> None:
    raise MissingThingError(SAID)


@flow
def in_the_flow() -> None:
    raise MissingThingError(SAID)


@flow
def in_a_step() -> None:
    step()


@flow(task_runner=BY_SETTING)
def in_a_mapped_step() -> None:
    for future in [step.submit(number) for number in range(4)]:
        future.result()


@flow
def after_another_try() -> None:
    step_that_is_tried_again()


@flow
def without_another_try() -> None:
    step_that_is_not_tried_again()


@flow
def of_a_kind_that_nobody_expects() -> None:
    step(mistake=ArithmeticError)


def errors_of(run: Flow[..., Any], error: type[Exception], **options: Any) -> list[str]:
    """The ERROR lines of a run that fails, whose state says why."""
    with pytest.raises(error) as raised:
        run(**options)
    found, logs = asyncio.run(newest_run(run.name))
    assert found.state
    assert found.state.is_failed()
    assert str(raised.value) in str(found.state.message)
    return [log.message for log in logs if log.level >= logging.ERROR]


@pytest.mark.parametrize(
    "run", [in_the_flow, in_a_step, in_a_mapped_step, after_another_try, without_another_try]
)
def test_prefect_has_one_line_of_an_error_of_the_user(run: Flow[..., Any]) -> None:
    assert errors_of(run, MissingThingError) == [SAID]


def test_prefect_has_the_traceback_of_another_error() -> None:
    told = errors_of(of_a_kind_that_nobody_expects, ArithmeticError)
    assert sum("Traceback (most recent call last)" in line for line in told) == 2


def test_prefect_has_one_line_of_parameters_that_do_not_fit(tmp_path: Path) -> None:
    [line] = errors_of(train_flow.train, ParametersError, source="youtube", workspace=tmp_path)
    assert line.startswith("channel is missing: source `youtube` needs one")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"training": {"epochs": 0}}, "training.epochs: Input should be greater than or equal"),
        ({"channel": "@a"}, "channel='@a' is given but source is `sample`"),
        ({"model": "./gone"}, "model: './gone' is neither a folder here nor a model"),
    ],
)
def test_a_run_that_a_worker_was_given_logs_one_line(parameters: dict[str, Any], said: str) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(
            train_flow.train, parameters={"source": "sample", **parameters}
        )
    with pytest.raises(Exception, match=re.escape(said)):
        run_flow(train_flow.train, flow_run=run, error_logger=flow_run_logger(run))
    found, logs = asyncio.run(newest_run("train"))
    assert found.id == run.id
    assert found.state
    assert said in str(found.state.message)
    [line] = [log.message for log in logs if log.level >= logging.ERROR]
    assert said in line
    assert "Traceback" not in line


def test_a_run_in_prefect_begins_with_the_checks(
    channel: YouTubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YOUTUBE_API_KEY")
    options = {"channel": "@tester", "workspace": tmp_path / "workspace"}
    [line] = errors_of(train_flow.train, MissingSecretError, **options)
    assert line.startswith("YOUTUBE_API_KEY is not set.")
    assert not channel.requests
    assert not (tmp_path / "workspace").exists()


NOT_THE_USERS = {
    "BadThumbnailError": "the thumbnail is left out",
    "RefusedHostError": "becomes a BadThumbnailError",
    "TooLargeError": "becomes a BadThumbnailError",
    "TooSlowError": "becomes a BadThumbnailError",
    "UnequalWeightsError": "a fault of ours",
    "_PageError": "begins the list anew, or becomes a YouTubeError",
}
"""Errors of this project whose message is no mend, and why."""


def test_every_error_of_this_project_is_the_users_or_has_a_reason() -> None:
    for package in (thumbtune.tasks, thumbtune.flows, thumbtune):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    ours = {kind for kind in subclasses(Exception) if kind.__module__.split(".")[0] == "thumbtune"}
    others = {kind.__name__ for kind in ours if not issubclass(kind, UserError)}
    assert others == set(NOT_THE_USERS)


def subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for special in kind.__subclasses__():
        yield special
        yield from subclasses(special)


# --- what is checked before ---


def test_what_costs_less_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("YOUTUBE_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").write_text("")
    (tmp_path / "clip").mkdir()
    fields: dict[str, Any] = {
        "channel": "@tester",
        "model": str(tmp_path / "clip"),
        "workspace": tmp_path / "file" / "workspace",
        "publish": {"model_repo": "me/clip"},
    }
    mends = {
        "YOUTUBE_API_KEY is not set": {"source": "folder", "channel": str(tmp_path)},
        "has neither a manifest": {"source": "sample", "channel": None},
        "model: the folder": {"model": "sample", "negatives": {"method": "none"}},
        "workspace: ": {"workspace": tmp_path / "new"},
        "HF_TOKEN is not set": {"publish": {}},
    }
    for said, mend in mends.items():
        with pytest.raises(UserError, match=said):
            check_training(TrainParameters.model_validate(fields))
        fields |= mend
    check_training(TrainParameters.model_validate(fields))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 5000, "./gone", "/gone"])
@pytest.mark.parametrize("field", ["channel", "model", "workspace"])
def test_a_name_that_no_folder_can_have_is_an_error_of_the_user(field: str, name: str) -> None:
    fields = {"source": "folder", "channel": str(ROOT / "sample" / "channel"), "model": "sample"}
    fields |= {"workspace": "new", field: name}
    if field == "workspace" and not name.startswith(("~", "x")):
        check_workspace(name)  # it is made
        return
    with pytest.raises(UserError, match=f"^{field}: "):
        check_training(TrainParameters.model_validate(fields))


def test_a_workspace_below_a_file_or_in_a_foreign_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "workspace"):
        with pytest.raises(UserError, match=r"file cannot be written \(Not a directory\)"):
            check_workspace(str(place))


def test_a_secret_block_counts_as_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server it is asked; without one, its database tells."""
    monkeypatch.delenv("A_TEST_KEY", raising=False)
    with pytest.raises(MissingSecretError):
        read_secret_early("A_TEST_KEY")
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(MissingSecretError),
    ):
        read_secret_early("A_TEST_KEY")
    Secret(value="abc").save("a-test-key")
    assert read_secret_early("A_TEST_KEY") == "abc"
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert read_secret_early("A_TEST_KEY") is None


PUBLISHING = """
import json, os
from thumbtune.parameters import PublishParameters
from thumbtune.channel.preflight import check_publishing
for token, repository in json.loads(os.environ["ASKED"]):
    os.environ["HF_TOKEN"] = token
    try:
        check_publishing(PublishParameters(dataset_repo=repository))
        print("may")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_the_right_to_publish_is_asked_for_once_and_nothing_is_written(tmp_path: Path) -> None:
    asked = {
        (WRITE_TOKEN, "owner/a"): "may",
        (WRITE_TOKEN, "Owner/b"): "may",
        (WRITE_TOKEN, "studio/a"): "may",
        (WRITE_TOKEN, "museum/a"): "owner only reads in museum",
        (WRITE_TOKEN, "stranger/a"): "this token is owner's",
        (READ_TOKEN, "owner/a"): "this token only reads",
        (FINE_TOKEN, "studio/a"): "may",
        (FINE_TOKEN, "owner/a"): "this fine-grained token has no write permission there",
        ("hf_wrong", "owner/a"): "HTTP 401",
    }
    with HubServer() as hub:
        done = run_python(PUBLISHING, hub.environment(tmp_path, ASKED=json.dumps(list(asked))))
        hub.failures.append(("whoami", 503))
        down = json.dumps([(WRITE_TOKEN, "stranger/a")])
        passing = run_python(PUBLISHING, hub.environment(tmp_path, ASKED=down))
    lines = done.stdout.splitlines()
    assert len(lines) == len(asked)
    for line, (_, repository), said in zip(lines, asked, asked.values(), strict=True):
        if said != "may":
            assert line.startswith(f"PublishError: publish: the hub refused to write {repository} ")
            assert f"({said}). Set HF_TOKEN to a token with write permission" in line
        else:
            assert line == "may"
    assert passing.stdout == "may\n"  # the hub may be up again when the model is trained
    assert set(hub.requests) == {"GET /api/whoami-v2"}
    assert len(hub.requests) == len({token for token, _ in asked}) + 1
    assert not hub.repositories


def test_publishing_offline_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, so me/clip cannot be written"):
        check_publishing(PublishParameters(model_repo="me/clip"))


# --- what was left out ---


def test_the_end_of_a_run_tells_what_was_left_out_and_why() -> None:
    dropped = {"shorter than 180 s": 2, "no title": 1}
    videos = FunnelStage(name="videos", found=62, kept=59, dropped=dropped)
    thumbnails = FunnelStage(name="thumbnails", found=59, kept=59, dropped={})
    assert left_out([videos, thumbnails]) == (
        "Left out: 3 of 62 videos (2 shorter than 180 s, 1 no title); 0 of 59 thumbnails."
    )
