"""The words of a command line: the channel by itself, help that can be read, typos that are met."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from thumbtune.app.cli import DEMO
from thumbtune.arguments import OF_MOST_USE, parse_command_line
from thumbtune.parameters import SweepParameters, TrainParameters, WatchParameters, in_rows

ROOT = Path(__file__).parent.parent
A_SCREEN = 20
"""Options that `--help` shows at most."""


@pytest.mark.parametrize(
    "words",
    [
        "@a",
        "@a --training.epochs 3",
        "--training.epochs 3 @a",
        "--refresh @a --no-refresh",
        "--training.epochs=3 @a",
        "--negatives.ceiling -0.5 @a",
        "--channel @a",
    ],
)
def test_a_word_that_follows_no_option_is_the_channel(words: str) -> None:
    assert parse_command_line(TrainParameters, words.split()).channel == "@a"


@pytest.mark.parametrize("words", ["@a @b", "--channel @a @b", "@b --channel=@a"])
def test_two_channels_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_command_line(TrainParameters, words.split())
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("--channel: give one channel.")


def test_arguments_go_before_what_a_command_gives() -> None:
    asked = parse_command_line(TrainParameters, ["--training.epochs", "3"], given=DEMO)
    training = asked.training
    assert (asked.source, training.epochs, training.learning_rate) == ("sample", 3, 0.001)


def test_the_demo_is_the_deployment_sample() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    [sample] = [each for each in deployments if each["name"] == "sample"]
    assert sample["parameters"] == DEMO


@pytest.mark.parametrize("model", [TrainParameters, SweepParameters, WatchParameters])
def test_help_shows_the_parameters_of_most_use_and_the_rest_on_demand(
    model: type, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as exit_:
            parse_command_line(model, [word], "thumbtune it")
        assert exit_.value.code == 0
        shown.append(capsys.readouterr().out)
    few, all_of_them = shown
    assert "usage: thumbtune it" in few
    assert few.count("\n  --") <= A_SCREEN
    assert "--help-all" in few
    if model is not WatchParameters:
        for name, _ in in_rows(TrainParameters(source="sample")):
            assert f"--{name}" in all_of_them


def test_each_parameter_of_most_use_is_one() -> None:
    known = {name for name, _ in in_rows(SweepParameters(source="sample"))}
    assert set(OF_MOST_USE) <= known | set(WatchParameters.model_fields)


def test_a_typo_is_told_in_a_line_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from thumbtune.app.cli import app\n"
        "sys.argv = ['thumbtune', 'train', '@a', '--trainig.epochs', '3']\n"
        "try: app()\n"
        "finally: print({'torch', 'prefect', 'gradio', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == (
        "unrecognized arguments: --trainig.epochs. Did you mean --training.epochs?\n"
    )
    assert (done.stdout, done.returncode) == ("set()\n", 2)
