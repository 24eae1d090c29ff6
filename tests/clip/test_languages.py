"""Advice to channels whose titles the chosen model cannot read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.small_channel import quick_run
from tests.text.test_languages import ENGLISH, GERMAN
from tests.tiny_clip import save_tiny_clip, save_tiny_siglip
from tests.tiny_encoders import KINDS_OF_MODELS
from thumbtune.clip.languages import FOR_MANY_LANGUAGES, advice_on, knows_english_alone
from thumbtune.clip.models import find_model
from thumbtune.flows.train_flow import train
from thumbtune.sample import MODEL
from thumbtune.store.workspace import Workspace


def with_vocabulary(folder: Path, size: int) -> Path:
    """A model whose configuration says so; nothing loads it."""
    file = folder / "config.json"
    config = json.loads(file.read_bytes())
    config["text_config"]["vocab_size"] = size
    file.write_text(json.dumps(config))
    return folder


def test_openais_clips_and_the_first_siglips_know_english_alone(tmp_path: Path) -> None:
    clip, siglip = save_tiny_clip(tmp_path / "clip"), save_tiny_siglip(tmp_path / "siglip")
    assert knows_english_alone(MODEL)
    assert knows_english_alone(with_vocabulary(clip, 49_408))
    assert knows_english_alone(with_vocabulary(siglip, 32_000))


def test_multilingual_models_are_told_by_their_vocabulary_or_their_kind(tmp_path: Path) -> None:
    siglip = save_tiny_siglip(tmp_path / "siglip")
    assert not knows_english_alone(with_vocabulary(siglip, 256_000))
    for kind in ("MetaCLIP 2", "ChineseCLIP", "AltCLIP"):
        assert not knows_english_alone(KINDS_OF_MODELS[kind](tmp_path / kind))


def test_advice_is_given_where_the_language_and_the_model_do_not_go_together(
    tmp_path: Path, workspace: Workspace
) -> None:
    clip = find_model(str(save_tiny_clip(tmp_path / "clip")))
    metaclip = find_model(str(KINDS_OF_MODELS["MetaCLIP 2"](tmp_path / "metaclip")))
    told = advice_on(GERMAN, clip, workspace).told
    assert told.startswith("Most titles are not English (German")
    assert f"--model {FOR_MANY_LANGUAGES}" in told
    assert advice_on(ENGLISH, clip, workspace).told == ""
    assert advice_on(GERMAN, metaclip, workspace).told == ""


@pytest.mark.usefixtures("prefect_harness")
def test_a_run_says_so_in_its_log_and_its_report_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = quick_run(tmp_path)
    manifest = Path(options["channel"]) / "manifest.json"
    rows = json.loads(manifest.read_text())
    for number, row in enumerate(rows):
        row["title"] = f"{GERMAN[number % len(GERMAN)]} {number}"
    manifest.write_text(json.dumps(rows))
    for _ in range(2):
        caplog.clear()
        run = train(**options)
        [warning] = [each for each in caplog.records if "hardly reads" in each.getMessage()]
        assert warning.levelname == "WARNING"
    assert "Most titles are not English (German" in Path(run.report).read_text()
