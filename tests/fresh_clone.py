"""The project as a new user has it: a folder of its own, an environment, and an empty home."""

import os
import shutil
import subprocess
import sysconfig
import venv
from importlib.metadata import entry_points
from pathlib import Path

from tests.documentation import ROOT

LEFT_OUT = {".git", ".venv", "workspace"}
SCRIPT = """#!{python}
import sys
from importlib.metadata import EntryPoint
sys.exit(EntryPoint("", {place!r}, "").load()())
"""


def copy_project(folder: Path) -> None:
    """Copy this working tree, without what git ignores."""
    patterns = (ROOT / ".gitignore").read_text().replace("/", "").split()
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT, *patterns))


def make_environment(place: Path) -> Path:
    """A fresh environment that finds the packages of the one that runs the tests.

    What is editable there is not found.

    Returns:
        The folder of its own packages.
    """
    venv.EnvBuilder(symlinks=True).create(place)
    [site_packages] = place.glob("lib/python*/site-packages")
    others = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site_packages / "others.pth").write_text("\n".join(others))
    return site_packages


class Clone:
    """A copy of this working tree; its `.venv` has the packages of the one that runs the tests.

    As after `make`'s editable install, only the packages of pyproject.toml are found there, so
    `tests` and `benchmarks` are not.
    """

    def __init__(self, folder: Path, home: Path, **environment: str) -> None:
        self.folder = folder
        copy_project(folder)
        self._make_environment(folder / ".venv")
        home.mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        self.environment = kept | {"HOME": str(home), "COLUMNS": "200"} | environment

    def _make_environment(self, place: Path) -> None:
        site_packages = make_environment(place)
        purelib = Path(sysconfig.get_path("purelib"))
        [finder] = purelib.glob("__editable___thumbtune_*_finder.py")  # setuptools', of this tree
        (site_packages / finder.name).write_text(
            finder.read_text().replace(str(ROOT), str(self.folder))
        )
        install = f"import {finder.stem}; {finder.stem}.install()"
        (site_packages / "thumbtune.pth").write_text(install)
        for script in entry_points(group="console_scripts"):
            file = place / "bin" / script.name
            file.write_text(SCRIPT.format(python=place / "bin/python", place=script.value))
            file.chmod(0o755)
        (place / ".installed").touch()  # for make: nothing is to be installed

    def run(
        self, line: str, before: tuple[str, ...] = (), timeout: float = 280, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell, after others that change its state."""
        return subprocess.run(
            ["bash", "-c", "\n".join(["set -e", *before, line])],
            cwd=cwd or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
