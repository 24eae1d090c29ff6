"""A workspace in a bucket: a real S3 server, whole runs, and other machines."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError
from pytest_httpserver import HTTPServer
from s3fs import S3FileSystem
from typer.testing import CliRunner

from tests.data.test_thumbnails import encoded, picture
from tests.s3_server import S3Server
from tests.small_channel import add_version
from thumbtune.app.cli import app
from thumbtune.arguments import parse_command_line
from thumbtune.channel.registry import Registry
from thumbtune.clip.features import FeatureStore
from thumbtune.clip.models import ModelNotFoundError, folder_of
from thumbtune.clip.shards import FROZEN, OWN
from thumbtune.errors import ParametersError
from thumbtune.flows.train_flow import train
from thumbtune.parameters import TrainParameters
from thumbtune.reporting.report import Report
from thumbtune.store.storage import WorkspaceError
from thumbtune.store.workspace import OutsideWorkspaceError, Table, Workspace
from thumbtune.use.champion import open_champion
from thumbtune.use.indexing import Entry, channel_place, index_channel, open_index, search_words
from thumbtune.use.matching import Matcher, NoModelError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

GoElsewhere = Callable[[], Path]


class Row(BaseModel):
    name: str


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket(keeps_versions=True)


@pytest.fixture
def url(bucket: str) -> str:
    return f"s3://{bucket}/team/clips"


@pytest.fixture
def workspace(url: str) -> Workspace:
    return Workspace.open(url)


@pytest.mark.usefixtures("prefect_harness")
def test_a_run_in_a_bucket_is_known_on_another_machine(
    url: str, bucket: str, s3: S3Server, another_machine: GoElsewhere
) -> None:
    options: dict[str, Any] = {
        "source": "sample",
        "model": "sample",
        "workspace": url,
        "negatives": {"text_model": "sample"},
        "evaluation": {"method": "holdout"},
        "training": {"recipe": "given", "epochs": 1, "learning_rate": 0.001},
    }
    first = train(**options)
    writes = s3.writes(bucket)
    kinds = {key.removeprefix("team/clips/").partition("/")[0] for key in writes}
    assert {"thumbnails", "features", "models", "registry", "indexes", "workspace-id"} <= kinds
    assert not [key for key in writes if "/." in key or key.endswith(".lock")]

    here = another_machine()
    second = train(**options)
    assert second.stages.startswith("Nothing to do")
    assert s3.writes(bucket) == writes
    assert (second.verdict.version, second.verdict.is_new, second.verdict.champion) == (1, False, 1)
    for place, known in ((second.model, first.model), (second.report, first.report)):
        assert Path(place).is_relative_to(here)
        assert not Path(known).is_relative_to(here)
    for name in (FROZEN, OWN, "README.md"):
        assert Path(second.model, name).read_bytes() == Path(first.model, name).read_bytes()
    assert Path(second.report).read_bytes() == Path(first.report).read_bytes()

    another_machine()
    matcher = open_champion(url)
    workspace = Workspace.find(url)
    [version] = Registry(workspace, "sample", None).versions()
    assert matcher.fingerprint == version.model.fingerprint
    index = open_index(workspace, channel_place(matcher.fingerprint, version))
    assert len(index) == version.examples.rows
    assert all(Path(hit.image).exists() for hit in search_words(index, matcher, "a boat", top=3))
    assert s3.writes(bucket) == writes


def test_the_commands_work_on_a_bucket(
    workspace: Workspace, url: str, another_machine: GoElsewhere
) -> None:
    version = add_version(workspace, count=8)
    another_machine()
    listed = CliRunner().invoke(app, ["models", "--workspace", url, "--json"])
    assert listed.exit_code == 0, listed.output
    assert f'"model": "{url}/{version.model.path}"' in listed.output
    assert '"weights": true' in listed.output
    found = CliRunner().invoke(app, ["search", "a boat", "--top=1", "--workspace", url])
    assert found.exit_code == 0, found.output
    rolled = CliRunner().invoke(app, ["rollback", "1", "--why", "tried", "--workspace", url])
    assert rolled.exit_code == 0, rolled.output
    another_machine()
    assert Registry(Workspace.find(url), "youtube", "@tester").decisions()[-1].why == "tried"


def test_a_workspace_that_travels_has_its_mirror_where_it_arrives(
    workspace: Workspace, another_machine: GoElsewhere
) -> None:
    workspace.write("a/b", b"c")
    sent = pickle.dumps(workspace)
    here = another_machine()
    arrived = pickle.loads(sent)
    assert arrived == workspace
    assert arrived.place("a/b").is_relative_to(here)
    assert arrived.place("a/b").read_bytes() == b"c"


def test_writers_at_once_each_get_a_number_of_their_own(workspace: Workspace) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: registry.decide(1, 1, str(n)).number, range(16)))
    assert sorted(made) == list(range(1, 17))
    assert {decision.why for decision in registry.decisions()} == {str(n) for n in range(16)}
    file = workspace.place(f"{registry.path}/decisions/000001.json")
    file.write_bytes(b"damaged in the mirror")
    assert len(registry.decisions()) == 16


def test_a_number_that_another_writer_is_about_to_take_is_left_to_it(
    workspace: Workspace, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 then answers 409; moto does not."""
    error = "<Error><Code>{}</Code><Message>told</Message></Error>".format
    conflict = httpserver.expect_request(re.compile(".*/1"), method="PUT")
    conflict.respond_with_data(error("ConditionalRequestConflict"), 409)
    httpserver.expect_request(re.compile(".*")).respond_with_data(error("NoSuchKey"), 404)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{httpserver.port}")
    S3FileSystem.clear_instance_cache()
    assert not workspace.create("1", b"x")
    [asked, *_] = httpserver.log
    assert asked[0].headers["If-None-Match"] == "*"


def test_what_another_machine_wrote_is_read_and_what_is_damaged_here_comes_again(
    workspace: Workspace, another_machine: GoElsewhere
) -> None:
    table = workspace.write_table("rows", [Row(name="a")])
    workspace.write("record.json", b"old")
    another_machine()
    workspace.write("record.json", b"new")
    file = workspace.place(table.path)
    for spoil in (file.unlink, lambda: file.write_bytes(b""), lambda: file.write_bytes(b"other")):
        spoil()
        assert table.is_whole(workspace)
        assert workspace.read_table(table, Row) == [Row(name="a")]
    another_machine()
    assert workspace.read("record.json") == b"new"


def test_a_report_that_another_machine_wrote_over_is_not_taken_for_ones_own(
    workspace: Workspace, another_machine: GoElsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = os.environ["THUMBTUNE_CACHE"]
    mine = Report.write(workspace, "models/key", {"report.html": b"mine"})
    other = str(another_machine())
    theirs = Report.write(workspace, "models/key", {"report.html": b"theirs"})
    monkeypatch.setenv("THUMBTUNE_CACHE", one)
    assert not mine.is_whole(workspace)
    assert theirs.is_whole(workspace)
    assert workspace.place("models/key/report.html").read_bytes() == b"theirs"
    Report.write(workspace, "models/key", {"report.html": b"mine"})
    monkeypatch.setenv("THUMBTUNE_CACHE", other)
    assert mine.is_whole(workspace)
    assert workspace.place("models/key/report.html").read_bytes() == b"mine"
    workspace.remove("models/key/report.html")
    monkeypatch.setenv("THUMBTUNE_CACHE", one)
    assert not mine.is_whole(workspace)


def test_damaged_features_and_indexes_of_a_mirror_come_again_from_the_bucket(
    workspace: Workspace, bucket: str, s3: S3Server
) -> None:
    version = add_version(workspace, count=8)
    matcher = Matcher.of_version(workspace, version)
    index_channel(workspace, version, matcher)
    writes = s3.writes(bucket)
    place = channel_place(matcher.fingerprint, version)
    damaged = [*workspace.root.glob("features/*/*"), *workspace.root.glob("indexes/*/*/*/*.*")]
    assert len(damaged) > 6
    for file in damaged:
        file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    assert Matcher.of_version(workspace, version).typical == pytest.approx(matcher.typical)
    assert len(open_index(workspace, place)) == 8
    assert s3.writes(bucket) == writes


def test_a_machine_that_only_searches_follows_the_index_and_keeps_no_old_one(
    workspace: Workspace, another_machine: GoElsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_version(workspace, count=8)
    matcher = Matcher.of_version(workspace, version)
    place = channel_place(matcher.fingerprint, version)
    writer = os.environ["THUMBTUNE_CACHE"]
    index_channel(workspace, version, matcher)
    reader = str(another_machine())
    assert len(open_index(workspace, place)) == 8
    monkeypatch.setenv("THUMBTUNE_CACHE", writer)
    workspace.write_file("thumbnails/new.jpg", encoded(picture()))
    new = Entry(id="new", title="A new video", image="thumbnails/new.jpg")
    index_channel(workspace, version, matcher, [new])
    monkeypatch.setenv("THUMBTUNE_CACHE", reader)
    assert len(open_index(workspace, place)) == 9
    kept = sorted(file.suffix for file in (workspace.root / place).iterdir())
    assert kept == [".jsonl", ".safetensors"]


def test_a_model_of_which_half_is_stored_is_not_loaded_until_it_is_whole(
    workspace: Workspace, bucket: str, s3: S3Server, another_machine: GoElsewhere
) -> None:
    version = add_version(workspace, count=8)
    folder = folder_of(version.model, workspace)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    lost = f"team/clips/{version.model.path}/modules.json"
    s3.client.delete_object(Bucket=bucket, Key=lost)
    another_machine()
    for _ in range(2):
        with pytest.raises(
            ModelNotFoundError, match=r"is not as it was when it was stored\. Train"
        ):
            Matcher.of_version(workspace, version)
    s3.client.upload_file(str(copy / "modules.json"), bucket, lost)
    assert Matcher.of_version(workspace, version).fingerprint == version.model.fingerprint


def test_a_card_that_is_brought_here_alone_does_not_stand_for_its_model(
    workspace: Workspace, another_machine: GoElsewhere
) -> None:
    version = add_version(workspace, count=8)
    workspace.write(f"{version.model.path}/README.md", b"# A card")
    another_machine()
    workspace.place(f"{version.model.path}/README.md")
    assert (folder_of(version.model, workspace) / "modules.json").exists()


def test_old_weights_leave_the_bucket(workspace: Workspace, another_machine: GoElsewhere) -> None:
    registry = Registry(workspace, "youtube", "@tester")
    versions = [add_version(workspace, count=8, seed=seed) for seed in range(3)]
    assert registry.remove_old_models(keep=1) == [1, 2]
    another_machine()
    assert [version.model.is_there(workspace) for version in versions] == [False, False, True]
    with pytest.raises(NoModelError, match="no longer there"):
        Matcher.of_version(workspace, versions[0])


def test_a_folder_that_is_stored_again_keeps_nothing_of_the_old_one(
    workspace: Workspace, another_machine: GoElsewhere
) -> None:
    for name in ("old", "new"):
        folder = workspace.root / "scratch"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / name).write_text(name)
        workspace.put("folder", folder)
    another_machine()
    assert [file.name for file in workspace.place("folder").rglob("*")] == ["sub", "new"]


def test_a_read_of_features_brings_only_the_files_that_have_them(
    workspace: Workspace, another_machine: GoElsewhere
) -> None:
    store = FeatureStore(workspace, "features/trunk")
    for channel in range(20):
        store.write({f"{channel} {n}": torch.full((1, 4), channel) for n in range(8)})
    another_machine()
    store = FeatureStore(workspace, "features/trunk")
    keys = [f"7 {n}" for n in range(8)]
    assert store.read([*keys, "nowhere"]).keys() == set(keys)
    assert len(list(workspace.root.glob("features/trunk/*.safetensors"))) == 1


def test_a_local_workspace_that_was_copied_into_a_bucket_goes_on_there(
    tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    local = Workspace.open(tmp_path / "local")
    version = add_version(local, count=8)
    record = local.root / "registry" / Registry(local, "youtube", "@tester").name / "versions"
    [file] = record.iterdir()
    absolute = str(local.root / version.model.path)  # as records were before
    file.write_text(file.read_text().replace(version.model.path, absolute))
    for found in local.root.rglob("*"):
        if found.is_file():
            key = found.relative_to(local.root).as_posix()
            s3.client.upload_file(str(found), bucket, f"moved/{key}")
    local.root.rename(tmp_path / "gone")
    matcher = open_champion(f"s3://{bucket}/moved")
    assert matcher.fingerprint == version.model.fingerprint


def test_a_stored_path_leads_to_no_key_outside_of_the_prefix(
    workspace: Workspace, bucket: str, s3: S3Server
) -> None:
    s3.client.put_object(Bucket=bucket, Key="team/secret", Body=b"x")
    for path in ("../secret", "a/../../secret", f"/{bucket}/team/secret", ""):
        for ask in (workspace.place, workspace.read, workspace.remove, workspace.names):
            with pytest.raises(OutsideWorkspaceError, match="leads out of the workspace s3://"):
                ask(path)
        assert not workspace.has(path)
        assert not Table(path=path, fingerprint="", rows=0).is_whole(workspace)
    assert "team/secret" in s3.writes(bucket)


def refused(location: str) -> str:
    with pytest.raises(WorkspaceError) as caught:
        Workspace.open(location)
    assert str(caught.value).startswith("workspace: ")
    return str(caught.value)


def test_a_bucket_that_is_not_there_or_does_not_let_us_in_is_told_with_the_mend(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no place s3://no-such-bucket/x. Make the bucket" in refused(
        "s3://no-such-bucket/x"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    S3FileSystem.clear_instance_cache()
    said = refused(f"s3://{bucket}/x")
    assert "does not let us in (NoCredentialsError). Set credentials" in said
    assert "AWS_ACCESS_KEY_ID" in said


def test_a_url_that_names_a_host_is_asked_only_if_the_environment_allows_it(
    monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    url = httpserver.url_for("/inside")
    assert "has none of the protocols abfs, az, gcs, gs, memory, s3, s3a" in refused(url)
    assert httpserver.log == []
    monkeypatch.setenv("THUMBTUNE_PROTOCOLS", "http, nope")
    refused(url)
    assert httpserver.log != []
    assert "fsspec does not know the protocol of nope://x" in refused("nope://x")


def test_without_the_extra_the_error_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None; from thumbtune.store.workspace import Workspace; "
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code} Workspace.open('s3://bucket/x')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = "workspace: s3://bucket/x needs a package that is not installed: pip install 'thumbtune"
    assert said in done.stderr


@pytest.mark.usefixtures("prefect_harness")
def test_a_password_in_the_url_is_refused_and_shown_nowhere(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hunter2"
    url = f"s3://me:{secret}@bucket/x"
    with pytest.raises(ValidationError, match="URL holds a password") as caught:
        TrainParameters(source="sample", workspace=url)
    with pytest.raises(SystemExit):
        parse_command_line(TrainParameters, ["--source", "sample", "--workspace", url])
    with pytest.raises(ParametersError, match=r"^workspace: the s3 URL holds a password") as raised:
        train(source="sample", workspace=url)
    shown = capsys.readouterr()
    assert "--workspace: workspace: the s3 URL holds a password" in shown.err
    for text in (str(caught.value), str(raised.value), shown.err, shown.out, caplog.text):
        assert secret not in text
