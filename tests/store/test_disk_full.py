"""A disk that is full, or may not be written to: a plain sentence, and nothing stored is lost.

The disks are real ones: a small tmpfs in a mount namespace of the runs' own.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.mortal_runs import Outcome, Runs, options_of
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.clip.features import FeatureStore
from thumbtune.store.storage import LEFTOVER
from thumbtune.store.workspace import Workspace, fingerprint

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("prefect_harness")]

SIZE = 64 * 2**20
PAGE = 4096
MOUNT = f"mount -t tmpfs -o size={SIZE} full $0/disk && mount -t tmpfs -o ro none $0/read-only"

ORDER = ["workspace-id", "quota", "youtube", "channels", "registry", "youtube-unfinished"]
ORDER += ["videos", "thumbnails", "looks", "alike", "splits", "title_vectors", "pairs", "examples"]
ORDER += ["features", "models"]
"""What a run writes, in its order."""

FULL_WHILE_WRITING = {
    "thumbnails": ("thumbnails", "looks"),
    "looks": ("looks", "alike"),
    "features": ("features", "training"),
    "models": ("saving", "report"),
}
"""Folder → the step that writes it, and the next one."""


class Disks:
    """Runs of the flow that see small disks."""

    def __init__(self, folder: Path) -> None:
        for name in ("disk", "read-only", "foreign"):
            (folder / name).mkdir()
        self.disk = folder / "disk"
        self.read_only = folder / "read-only"
        self.foreign = Path("/")  # another user's, where root of a user namespace is nobody
        if os.getuid() == 0:
            self.foreign = folder / "foreign"
            os.chown(self.foreign, 1000, 1000)
        in_namespace = ["unshare", "-rm", "sh", "-c", f'{MOUNT} && exec "$@"', str(folder)]
        self.runs = Runs(folder / "home", in_namespace)
        self.seen_from_here = Path(f"/proc/{self.runs.process.pid}/root")

    def leave(self, free: int) -> None:
        """Fill the disk up to so many bytes, the run's own files included."""
        with (self.seen_from_here / self.disk.relative_to("/") / "other").open("wb") as other:
            other.truncate(0)
            block = bytes(PAGE)
            for _ in range((SIZE - free) // PAGE):
                other.write(block)

    def mount(self, *command: str) -> None:
        """Mount or unmount where the runs see it."""
        inside = ["nsenter", "-t", str(self.runs.process.pid), "-U", "-m", "--preserve-credentials"]
        subprocess.run([*inside, *command], check=True, timeout=60)

    def make_read_only(self, folder: Path) -> None:
        """From now on nothing can be written there."""
        (self.seen_from_here / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
        self.mount("mount", "-t", "tmpfs", "-o", "ro", "none", str(folder))

    def copy(self, to: Path) -> Path:
        """The workspace as it is now, where this process sees it."""
        shutil.rmtree(to, ignore_errors=True)
        place = self.seen_from_here / self.disk.relative_to("/") / "workspace"
        return Path(shutil.copytree(place, to))


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    disks = Disks(tmp_path_factory.mktemp("disks"))
    with disks.runs:
        yield disks


def bytes_on_disk(workspace: Path) -> Counter[str]:
    """Of each folder, in whole pages."""
    sizes: Counter[str] = Counter()
    for file in workspace.rglob("*"):
        if file.is_file():
            pages = -(-file.stat().st_size // PAGE)
            sizes[file.relative_to(workspace).parts[0]] += pages * PAGE
    return sizes


def assert_all_is_whole(workspace: Path) -> None:
    files = [file for file in workspace.rglob("*") if file.is_file()]
    assert not [file for file in files if LEFTOVER.fullmatch(file.name)]
    for file in files:
        match file.relative_to(workspace).parts[0], file.suffix:
            case _, ".jsonl":
                assert fingerprint(file.read_bytes())[:32] == file.stem
            case _, ".json":
                json.loads(file.read_bytes())
            case "thumbnails", _:
                assert hashlib.sha256(file.read_bytes()).hexdigest() == file.stem
            case "features" | "title_vectors", ".safetensors":
                with safe_open(file, framework="pt") as stored:
                    keys = json.loads(stored.metadata()["keys"])
                path = file.parent.relative_to(workspace).as_posix()
                store = FeatureStore(Workspace.open(workspace), path)
                assert store.read(keys).keys() == set(keys)


def test_a_full_disk_stops_the_run_with_one_sentence_and_the_next_goes_on(
    disks: Disks, youtube: YouTubeServer, tmp_path: Path
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    options = options_of(disks.disk / "workspace")
    whole = disks.runs.run(options)
    assert whole.run, whole.traceback
    undisturbed = Outcome.of(disks.copy(tmp_path / "undisturbed"))
    sizes = bytes_on_disk(tmp_path / "undisturbed")
    shutil.rmtree(disks.seen_from_here / str(options["workspace"]).lstrip("/"))
    youtube.image_requests.clear()

    for folder, (step, later) in FULL_WHILE_WRITING.items():
        before = sum(sizes[name] for name in ORDER[: ORDER.index(folder)])
        disks.leave(before + sizes[folder] // 2)
        ended = disks.runs.run(options)
        assert step in ended.steps, ended.traceback
        assert later not in ended.steps
        assert ended.error.startswith(f"No space left in the workspace {options['workspace']} (")
        assert ended.error.endswith("Free some, then run again: what is stored is kept.")
        assert_all_is_whole(disks.copy(tmp_path / "copy"))

    disks.leave(SIZE)
    ended = disks.runs.run(options)
    assert ended.run, ended.traceback
    assert "fetch-thumbnails" not in ended.run["stages"].partition("From the cache")[0]
    assert Outcome.of(disks.copy(tmp_path / "copy")) == undisturbed


@pytest.mark.parametrize("folder", ["youtube-unfinished", "thumbnails"])
def test_a_workspace_that_becomes_read_only_stops_the_run_with_one_sentence(
    disks: Disks, youtube: YouTubeServer, folder: str
) -> None:
    youtube.add_channel([make_video(n) for n in range(60)])
    workspace = disks.disk / f"loses-{folder}"
    disks.leave(SIZE)
    places = [workspace / folder]

    def turn() -> None:
        if places:
            disks.make_read_only(places.pop())

    youtube.before_page = turn
    output = disks.runs.home / "output"
    before = output.stat().st_size if output.exists() else 0
    ended = disks.runs.run(options_of(workspace))
    disks.mount("umount", str(workspace / folder))
    assert ended.error.startswith(f"workspace: {workspace}/{folder}")
    assert ended.error.endswith(
        " cannot be written (Read-only file system). Give this user the right to write there, or "
        "choose another workspace."
    )
    said = output.read_bytes()[before:].decode()
    assert "Traceback" not in said
    assert said.count("Read-only file system") == 1
    assert disks.runs.run(options_of(workspace)).run


@pytest.mark.parametrize("kind", ["read_only", "foreign", "file"])
def test_a_workspace_that_cannot_be_written_is_an_error_that_names_it(
    disks: Disks, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOUTUBE_API_KEY", "a key")
    if kind == "file":
        (tmp_path / "file").touch()
    parent: Path = getattr(disks, kind, tmp_path / "file")
    ended = disks.runs.run(options_of(parent / "thumbtune-workspace"))
    assert ended.error.startswith(f"workspace: {parent}")
    assert ended.error.endswith("write there, or choose another workspace.")
