"""One model of parameters: the command line, the form in the Prefect UI, prefect.yaml."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from docs.parameters import page
from thumbtune.arguments import parse_command_line
from thumbtune.channel.news import read_channels
from thumbtune.flows.train_flow import train
from thumbtune.parameters import (
    SweepParameters,
    TrainParameters,
    WatchParameters,
)

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.compatibility


def test_the_defaults_are_the_articles() -> None:
    parameters = TrainParameters(channel="@ShawTalebi")
    assert parameters.model == "sentence-transformers/clip-ViT-L-14"
    assert parameters.negatives.text_model.endswith("all-mpnet-base-v2")
    assert parameters.videos.min_duration_seconds == 180
    assert (parameters.split.train, parameters.split.valid) == (0.7, 0.15)
    training = parameters.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (2, 16, 1e-4)
    assert training.trainable == ("auto",)


def test_the_command_line_sets_any_field_and_leaves_the_others() -> None:
    arguments = (
        "--channel @a --model b --training.epochs 3 --training.trainable projection "
        "--training.trainable layers.11 --evaluation.recall_at 1,3 --refresh"
    )
    parameters = parse_command_line(TrainParameters, arguments.split(" "))
    expected = TrainParameters.model_validate(
        {
            "channel": "@a",
            "model": "b",
            "refresh": True,
            "training": {"epochs": 3, "trainable": ["projection", "layers.11"]},
            "evaluation": {"recall_at": [1, 3]},
        }
    )
    assert parameters == expected


def test_a_file_of_parameters_is_read_first_and_other_arguments_go_before_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "best.json"
    stored = TrainParameters.model_validate(
        {"channel": "@a", "training": {"epochs": 9, "learning_rate": 1e-5}, "seed": 7}
    )
    file.write_text(stored.model_dump_json())
    assert parse_command_line(TrainParameters, ["--parameters", str(file)]) == stored
    arguments = ["--channel", "@b", "--training.epochs", "3", f"--parameters={file}"]
    parameters = parse_command_line(TrainParameters, arguments)
    assert (parameters.channel, parameters.seed) == ("@b", 7)
    assert (parameters.training.epochs, parameters.training.learning_rate) == (3, 1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as JSON: [Errno 2]"),
        ("epochs: 2", "cannot be read as JSON: Expecting value"),
        ("[1]", "holds no JSON object of parameters"),
        ('{"channel": "@a", "training": {"epochs": 0}}', "--training.epochs: Input should be gr"),
        ('{"channel": "@a", "sweep": {"trials": 3}}', "--sweep: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_of_parameters_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    file = tmp_path / "best.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as exit_:
        parse_command_line(TrainParameters, ["--parameters", str(file)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_the_environment_sets_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "other")
    monkeypatch.setenv("SEED", "1")
    assert parse_command_line(TrainParameters, ["--channel", "@a"]) == TrainParameters(channel="@a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "channel is missing: source `youtube` needs one"),
        ("--source sample --channel @a", "channel='@a' is given but source is `sample`"),
        ("--channel @a --training.epochs 0", "--training.epochs: Input should be greater than"),
        ("--channel @a --training.epochs two", "--training.epochs: Input should be a valid int"),
        ("--channel @a --split.train 0.9", "--split: split.train + split.valid is 1.05"),
        ("--channel @a --split.method given", "split.method is `given`, but only source `hub`"),
        ("--channel @a --evaluation.recall_at 5,10", "evaluation.recall_at is (5, 10); add 1"),
        ("--channel @a --publish.model_repo me", "--publish.model_repo: String should match"),
        ("--channel @a --training.epoch 2", "unrecognized arguments: --training.epoch"),
    ],
)
def test_a_wrong_argument_exits_with_a_message_that_names_the_field(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_command_line(TrainParameters, arguments.split())
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_field_is_refused_at_every_level() -> None:
    for extra in ({"chanel": "@a"}, {"training": {"epoch": 2}}):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            TrainParameters.model_validate({"channel": "@a", **extra})


def test_fields_of_earlier_versions_are_read_and_forgotten_but_are_no_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Records, deployments and files of parameters may have them."""
    samples = {"bootstrap_samples": 500}
    old = {"channel": "@a", "evaluation": samples, "promotion": {**samples, "metric": "Recall@1"}}
    read = TrainParameters.model_validate_json(json.dumps(old))
    assert read.promotion.metric == "Recall@1"
    assert "bootstrap" not in read.model_dump_json()
    with pytest.raises(SystemExit):
        parse_command_line(TrainParameters, ["--evaluation.bootstrap_samples", "500"])
    assert "bootstrap_samples" in capsys.readouterr().err


def test_no_parameter_takes_a_secret() -> None:
    schema = str(TrainParameters.model_json_schema()).lower()
    assert "password" not in schema
    assert not re.search(r"'\w*(api_key|token|secret)\w*': \{", schema)


def test_every_field_has_a_description_that_the_form_shows() -> None:
    schema = train.parameters.model_dump()
    for name, field in schema["properties"].items():
        assert field.get("description"), name
    for definition in schema["definitions"].values():
        for name, field in definition["properties"].items():
            assert field.get("description"), name


def test_the_forms_fields_defaults_and_bounds_are_the_models() -> None:
    form = train.parameters.model_dump()
    model = TrainParameters.model_json_schema()
    assert list(form["properties"]) == list(model["properties"])
    for name, field in model["properties"].items():
        for bound in ("default", "minimum", "minLength", "exclusiveMaximum", "enum"):
            if bound in field:
                assert form["properties"][name][bound] == field[bound], (name, bound)
    assert form["definitions"] == model["$defs"]


@pytest.mark.usefixtures("prefect_harness")
def test_a_flow_run_checks_bounds_before_it_starts() -> None:
    with pytest.raises(Exception, match=r"training\.epochs: Input should be greater than"):
        train(channel="@a", training={"epochs": 0})


def test_prefect_yaml_holds_valid_parameters() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {deployment["name"] for deployment in deployments} == {
        "train",
        "sample",
        "sweep",
        "watch",
    }
    models = {"sweep": SweepParameters, "watch": WatchParameters}
    for deployment in deployments:
        model = models.get(deployment["name"], TrainParameters)
        asked = deployment["parameters"]
        model.model_validate(
            asked | ({"channel": "@a"} if asked.get("source") == "youtube" else {})
        )


def test_the_trigger_of_training_hands_over_every_parameter() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    [trigger] = next(d["triggers"] for d in deployments if d["name"] == "train")
    assert list(trigger["parameters"]) == list(TrainParameters.model_fields)
    for name, value in trigger["parameters"].items():
        assert value["value"]["template"] == f"{{{{ event.payload.parameters.{name} | tojson }}}}"


def test_the_file_of_channels_begins_empty_and_its_example_is_valid(tmp_path: Path) -> None:
    assert read_channels(ROOT / "channels.yaml") == []
    lines = (ROOT / "channels.yaml").read_text().replace("channels: []\n", "").splitlines()
    example = [line.removeprefix("# ") for line in lines if not line.startswith("# Each")]
    (tmp_path / "channels.yaml").write_text("\n".join(example[1:]))
    first, second = read_channels(tmp_path / "channels.yaml")
    assert (first.channel, second.channel, second.training.epochs) == (
        "@your-handle",
        "@another",
        4,
    )


def test_the_page_of_parameters_is_as_the_models_are() -> None:
    assert (ROOT / "docs" / "parameters.md").read_text() == page()
