"""Puts prefect.yaml, which stands at the top of the repository, into the installed package."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithDeployments(build_py):
    """Builds the packages, and their deployments beside them."""

    def run(self) -> None:
        """An editable installation reads the file where it stands."""
        super().run()
        if not self.editable_mode:
            self.copy_file("prefect.yaml", str(Path(self.build_lib, "thumbtune", "prefect.yaml")))


setup(cmdclass={"build_py": WithDeployments})
