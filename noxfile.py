"""The tests with other Pythons and other versions of the libraries: `make matrix`.

`nox -s oldest` runs the tests that are marked `compatibility`, `nox -s oldest -- tests` all of
them. A Python that is not on this machine is skipped, and nox says so.
"""

import os

import nox

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")
TORCH = (
    "torch==2.13.0"  # the one of requirements.lock, before the others: a build that is there stays
)
WORKERS = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")


def install(session: nox.Session, *arguments: str) -> None:
    """Install with uv, from where pip looks too, such as for a torch without CUDA."""
    places = {
        f"UV_{name}": os.environ[f"PIP_{name}"]
        for name in ("FIND_LINKS", "EXTRA_INDEX_URL", "INDEX_URL")
        if f"PIP_{name}" in os.environ
    }
    session.install(*arguments, env={**places, "UV_INDEX_STRATEGY": "unsafe-best-match"})


def run_tests(session: nox.Session) -> None:
    session.run("uv", "pip", "freeze", external=True)
    chosen = session.posargs or ["-m", "compatibility"]
    session.run("python", "-m", "pytest", *WORKERS, *chosen)


@nox.session(python=nox.project.python_versions(PYPROJECT))
def locked(session: nox.Session) -> None:
    """The versions of requirements.lock."""
    install(session, "--requirement", "requirements.lock")
    install(session, "--no-deps", "--editable", ".")
    run_tests(session)


@nox.session
def oldest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml allows."""
    install(session, TORCH)
    install(session, "--resolution=lowest-direct", "--editable", ".[dev]")
    run_tests(session)


@nox.session
def newest(session: nox.Session) -> None:
    """The newest versions that pyproject.toml allows, but for torch."""
    install(session, TORCH)
    install(session, "--editable", ".[dev]")
    run_tests(session)
