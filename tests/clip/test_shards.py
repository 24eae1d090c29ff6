"""Versions whose frozen weights are kept once for all."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from tests.data.test_thumbnails import picture
from tests.s3_server import S3Server
from tests.small_channel import add_version
from tests.tiny_clip import save_tiny_clip
from tests.tiny_encoders import KINDS_OF_MODELS, save_vision_text_dual_encoder
from thumbtune.app.cli import app
from thumbtune.channel.registry import Registry
from thumbtune.clip.freezing import freeze
from thumbtune.clip.models import ModelNotFoundError, find_model, folder_of, load_model
from thumbtune.clip.shards import (
    FROZEN,
    INDEX,
    OWN,
    WEIGHTS,
    in_one_piece,
    mend_frozen,
    read_weights,
)
from thumbtune.clip.trainable import set_trainable
from thumbtune.learning.job import save
from thumbtune.parameters import AUTO
from thumbtune.store.disk import in_plain_words
from thumbtune.store.model_reference import ModelReference, hash_of
from thumbtune.store.shared_files import LISTING, note_of, remove_unshared
from thumbtune.store.workspace import Workspace

FRAGMENTS = ["projection"]


def tuned(base: ModelReference, step: float) -> SentenceTransformer:
    """As a training with a closed form leaves it: other projections, and other biases before."""
    model = load_model(base)
    freeze(model, FRAGMENTS)
    clip = model[0].model
    with torch.no_grad():
        for weight in (clip.visual_projection.weight, clip.vision_model.post_layernorm.bias):
            weight += step
    return model


@pytest.fixture
def base(tmp_path: Path) -> ModelReference:
    return find_model(str(save_tiny_clip(tmp_path / "clip")))


def version(workspace: Workspace, base: ModelReference, step: float = 0.1) -> ModelReference:
    return save(tuned(base, step), workspace, "mine", base)


def bytes_on_disk(folder: Path) -> int:
    """Each file once, however many names it has."""
    files = {file.stat().st_ino: file for file in folder.rglob("*") if file.is_file()}
    return sum(file.stat().st_size for file in files.values())


def embedded(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder))
    return np.concatenate([model.encode(["A title", "Noch einer"]), model.encode([picture()])])


def test_a_version_is_an_ordinary_model_that_embeds_as_what_was_trained(
    workspace: Workspace, base: ModelReference, tmp_path: Path
) -> None:
    folder = folder_of(version(workspace, base), workspace)
    assert {FROZEN, OWN, INDEX} <= {file.name for file in folder.iterdir()}
    (tmp_path / "usual").touch()
    assert (folder / OWN).stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (folder / FROZEN).stat().st_mode & 0o777 == 0o444
    tuned(base, 0.1).save_pretrained(str(tmp_path / "whole"), create_model_card=False)
    np.testing.assert_allclose(embedded(folder), embedded(tmp_path / "whole"), atol=1e-6)
    weights = [SentenceTransformer(str(each)).state_dict() for each in (folder, tmp_path / "whole")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_versions_take_the_disk_for_what_they_have_learned_alone(
    workspace: Workspace, base: ModelReference
) -> None:
    folders = [folder_of(version(workspace, base, 0.1 * n), workspace) for n in range(1, 6)]
    assert len({(folder / FROZEN).stat().st_ino for folder in folders}) == 1
    assert len({(folder / OWN).read_bytes() for folder in folders}) == 5
    own = sum(file.stat().st_size for file in folders[0].iterdir() if file.name != FROZEN)
    frozen = (folders[0] / FROZEN).stat().st_size
    assert bytes_on_disk(workspace.root) < frozen + 5 * own + 1000


def test_a_version_is_known_by_the_same_hash_as_one_that_is_kept_whole(
    workspace: Workspace, base: ModelReference
) -> None:
    cut = version(workspace, base)
    with in_one_piece(folder_of(cut, workspace)) as whole:
        assert not {FROZEN, OWN, INDEX, LISTING} & {file.name for file in whole.iterdir()}
        assert hash_of(whole) == cut.fingerprint
    assert not whole.exists()
    shutil.rmtree(workspace.root / "models")
    assert save(tuned(base, 0.1), workspace, "mine") == cut
    assert (folder_of(cut, workspace) / WEIGHTS).is_file()


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_damaged_frozen_shard_is_mended_in_each_version_that_is_used(
    workspace: Workspace, base: ModelReference, is_kept: bool
) -> None:
    versions = [version(workspace, base, step) for step in (0.1, 0.2)]
    folders = [folder_of(each, workspace) for each in versions]
    before = [embedded(folder) for folder in folders]
    [kept] = (workspace.root / "frozen").glob("*.safetensors")
    if is_kept:  # a copy of the workspace may have lost the links
        shutil.copy2(kept, kept.with_name("copy"))
        (kept.with_name("copy")).replace(kept)
    data = bytearray((folders[0] / FROZEN).read_bytes())
    data[-3] ^= 4
    (folders[0] / FROZEN).write_bytes(data)
    assert not any(each.is_intact(workspace) for each in versions)
    for each, folder, vectors in zip(versions, folders, before, strict=True):
        load_model(each, workspace)
        assert each.is_intact(workspace)
        assert (embedded(folder) == vectors).all()
    assert len({(folder / FROZEN).stat().st_ino for folder in folders}) == 1


@pytest.mark.parametrize("kind", sorted(set(KINDS_OF_MODELS) - {"two models"}))
def test_the_frozen_shard_of_any_kind_is_made_again_of_the_base(
    kind: str, workspace: Workspace, tmp_path: Path
) -> None:
    base = find_model(str(KINDS_OF_MODELS[kind](tmp_path / "base")))
    model = load_model(base)
    set_trainable(model, AUTO)
    kept = save(model, workspace, "mine", base)
    folder = folder_of(kept, workspace)
    before = embedded(folder)
    [shared] = (workspace.root / "frozen").glob("*.safetensors")
    for file in (shared, folder / FROZEN):
        file.unlink()
        file.write_bytes(b"damaged")
    load_model(kept, workspace)
    assert kept.is_intact(workspace)
    assert (embedded(folder) == before).all()
    assert not [file for file in workspace.root.iterdir() if file.name.startswith(".model.")]


@pytest.mark.parametrize(
    "fragments", [["vision_model.layers.1"], ["vision_model.layernorm", "projection"]]
)
def test_a_version_is_small_though_its_weights_have_other_names_in_memory(
    fragments: list[str], workspace: Workspace, tmp_path: Path
) -> None:
    base = find_model(str(save_vision_text_dual_encoder(tmp_path / "base")))
    model = load_model(base)
    learned = set_trainable(model, fragments).trainable
    own, _ = read_weights(folder_of(save(model, workspace, "mine", base), workspace) / OWN)
    biases = 2 * 8  # of both towers' ends, which a closed form lowers
    assert learned <= sum(tensor.numel() for tensor in own.values()) <= learned + 2 * 64 + biases


def test_a_base_that_lacks_a_frozen_weight_mends_nothing_and_leaves_nothing(
    workspace: Workspace, base: ModelReference
) -> None:
    kept = version(workspace, base)
    folder = folder_of(kept, workspace)
    [shared] = (workspace.root / "frozen").glob("*.safetensors")
    shared.unlink()
    less = load_model(base)
    del less[0].model.text_model.embeddings.position_embedding.weight
    assert not mend_frozen(kept, workspace, less)
    assert not list((workspace.root / "frozen").glob("*.safetensors"))
    assert (folder / FROZEN).exists()


def test_a_frozen_shard_that_another_user_has_kept_is_shared(
    workspace: Workspace, base: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Path.chmod

    def of_another(file: Path, mode: int) -> None:
        if file.parent.name == "frozen":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(file))
        really(file, mode)

    first = version(workspace, base)
    monkeypatch.setattr(Path, "chmod", of_another)
    second = version(workspace, base, 0.2)
    assert len({(folder_of(v, workspace) / FROZEN).stat().st_ino for v in (first, second)}) == 1


def test_a_damaged_shard_in_a_workspace_that_cannot_be_written_is_told_by_its_name(
    workspace: Workspace, base: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = version(workspace, base)
    [shared] = (workspace.root / "frozen").glob("*.safetensors")
    for file in (shared, folder_of(kept, workspace) / FROZEN):
        file.unlink()
        file.write_bytes(b"damaged")
    really = os.mkdir

    def refused(path: str, *mode: int) -> None:
        if Path(path).is_relative_to(workspace.root):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        really(path, *mode)

    monkeypatch.setattr("os.mkdir", refused)
    with pytest.raises(PermissionError) as told:
        load_model(kept, workspace)
    said = in_plain_words(told.value)
    assert said.startswith("workspace: ")
    assert "cannot be written (Permission denied). Give this user the right" in said


def test_a_rollback_mends_what_all_versions_share(workspace: Workspace) -> None:
    first = add_version(workspace)
    registry = Registry(workspace, "youtube", "@tester")
    add_version(workspace, seed=1)
    (folder_of(first.model, workspace) / FROZEN).unlink()
    command = ["rollback", "1", f"--workspace={workspace.root}"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert registry.champion() == first
    assert first.model.is_intact(workspace)


@pytest.mark.parametrize("name", [OWN, INDEX, LISTING, "config.json"])
def test_what_is_a_versions_own_cannot_be_mended_and_is_told(
    workspace: Workspace, base: ModelReference, name: str
) -> None:
    kept = version(workspace, base)
    file = folder_of(kept, workspace) / name
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ModelNotFoundError, match="files are damaged"):
        load_model(kept, workspace)
    again = version(workspace, base)
    assert again == kept
    load_model(again, workspace)


def test_a_frozen_shard_that_cannot_be_made_again_is_told_with_the_base_that_would_mend_it(
    workspace: Workspace, base: ModelReference, tmp_path: Path
) -> None:
    kept = version(workspace, base)
    shutil.move(base.path, tmp_path / "elsewhere")
    [shared] = (workspace.root / "frozen").glob("*.safetensors")
    for file in (shared, folder_of(kept, workspace) / FROZEN):
        file.unlink()
        file.write_bytes(b"damaged")
    with pytest.raises(ModelNotFoundError, match=f"Bring {re.escape(base.name)} back as it was"):
        load_model(kept, workspace)
    shutil.move(tmp_path / "elsewhere", base.path)
    load_model(kept, workspace)


def test_a_listing_that_somebody_changed_leads_nowhere_else(
    workspace: Workspace, base: ModelReference, tmp_path: Path
) -> None:
    kept = version(workspace, base)
    listing = folder_of(kept, workspace) / LISTING
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for name, place in ((FROZEN, "../secret"), ("../../../stolen", "frozen/x"), (FROZEN, "/etc/x")):
        told = json.loads(listing.read_text())
        told["parts"][name] = {"sha256": "0" * 64, "shared": place}
        listing.write_text(json.dumps(told))
        with pytest.raises(ModelNotFoundError):
            load_model(kept, workspace)
    assert secret.read_text() == "secret"
    assert not list(workspace.root.rglob("stolen"))


def without_links(kept: object, target: object) -> None:
    raise OSError(errno.EPERM, "no links here")


def test_where_file_systems_have_no_links_it_is_copied(
    workspace: Workspace, base: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thumbtune.store.shared_files.os.link", without_links)
    versions = [version(workspace, base, step) for step in (0.1, 0.2)]
    assert all(each.is_intact(workspace) for each in versions)
    shards = {(folder_of(each, workspace) / FROZEN).stat().st_ino for each in versions}
    assert len(shards) == 2


def test_a_file_that_can_have_no_more_names_gets_a_fresh_copy(
    workspace: Workspace, base: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.link

    def at_most_three(kept: Path, target: Path) -> None:
        if kept.stat().st_nlink >= 3:
            raise OSError(errno.EMLINK, "Too many links")
        really(kept, target)

    monkeypatch.setattr("thumbtune.store.shared_files.os.link", at_most_three)
    versions = [version(workspace, base, 0.1 * n) for n in range(1, 6)]
    shards = [(folder_of(each, workspace) / FROZEN).stat().st_ino for each in versions]
    assert len(set(shards)) == 3
    assert all(each.is_intact(workspace) for each in versions)


def test_what_no_version_shares_any_more_is_deleted_after_a_day(
    workspace: Workspace, base: ModelReference
) -> None:
    kept = version(workspace, base)
    [shared] = (workspace.root / "frozen").glob("*.safetensors")
    long_ago = {"older_than": timedelta(0)}
    remove_unshared(shared.parent, **long_ago)
    assert shared.exists()
    workspace.remove(kept.path)
    workspace.remove_unshared()
    assert shared.exists()  # a run may be about to link it
    remove_unshared(shared.parent, **long_ago)
    assert not shared.exists()
    assert not note_of(shared).exists()
    assert version(workspace, base) == kept


def test_a_bucket_has_the_frozen_weights_once_and_another_machine_loads_each_version(
    s3: S3Server, base: ModelReference, another_machine: Callable[[], Path]
) -> None:
    bucket = s3.new_bucket(keeps_versions=True)
    workspace = Workspace.open(f"s3://{bucket}/team")
    versions = [version(workspace, base, step) for step in (0.1, 0.2)]
    written = s3.writes(bucket)
    assert not any(key.endswith(FROZEN) for key in written)
    [shared] = [key for key in written if key.startswith("team/frozen/")][::2]
    assert written[shared] == 1
    vectors = [embedded(folder_of(each, workspace)) for each in versions]
    another_machine()
    for each, before in zip(versions, vectors, strict=True):
        folder = folder_of(each, workspace)
        np.testing.assert_allclose(embedded(folder), before, atol=1e-6)
        (folder / FROZEN).write_bytes(b"damaged here")
        load_model(each, workspace)
        np.testing.assert_allclose(embedded(folder), before, atol=1e-6)


def test_old_versions_are_made_small_and_stay_what_they_are(workspace: Workspace) -> None:
    versions = [add_version(workspace, seed=seed, whole=True) for seed in (0, 1)]
    folders = [folder_of(each.model, workspace) for each in versions]
    before = [embedded(folder) for folder in folders]
    (folders[0] / "README.md").write_text("# A card")
    size = bytes_on_disk(workspace.root)
    here = f"--workspace={workspace.root}"
    told = json.loads(CliRunner().invoke(app, ["shrink", "--json", here]).output)
    assert [each["version"] for each in told] == [1, 2]
    assert size - bytes_on_disk(workspace.root) > 0.4 * size
    for each, folder, vectors in zip(versions, folders, before, strict=True):
        assert each.model.is_intact(workspace)
        np.testing.assert_allclose(embedded(folder), vectors, atol=1e-6)
    assert (folders[0] / "README.md").read_text() == "# A card"
    assert Registry(workspace, "youtube", "@tester").versions() == versions
    again = CliRunner().invoke(app, ["shrink", here]).output
    assert again.splitlines() == ["0.0 MB less in 2 versions"]


def test_a_version_whose_base_is_gone_stays_as_it_is(workspace: Workspace, tmp_path: Path) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    made = add_version(workspace, whole=True, clip=clip)
    shutil.rmtree(clip)
    said = CliRunner().invoke(app, ["shrink", f"--workspace={workspace.root}"]).output
    assert "its base cannot be had" in " ".join(said.split())
    assert made.model.is_intact(workspace)
