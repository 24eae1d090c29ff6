"""The rules of the house: which part may import which, and where tasks are."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.documentation import ROOT

TOP_LEVEL = {"thumbtune": "thumbtune", "flows": "thumbtune.flows", "tasks": "thumbtune.tasks"}
TOP_LEVEL |= {"sample": "thumbtune.sample"}
FLOORS = (
    ("errors", "text", "sample", "commands", "metrics", "progress", "imports"),
    ("names", "extras"),
    ("store", "hub"),
    ("parameters",),
    ("arguments",),
    ("channel",),
    ("data",),
    ("clip",),
    ("learning",),
    ("reporting", "use"),
    ("tasks",),
    ("flows",),
    ("app",),
)
"""From the ground up. A part may import those of floors below, and itself."""

FLOOR = {part: number for number, floor in enumerate(FLOORS) for part in floor}
NO_STEP = {
    "artifacts",
    "caching",
    "cancelling",
    "logs",
    "notifications",
    "progress",
    "retries",
    "runs",
    "secret_blocks",
    "__init__",
}
"""What stands beside the steps in tasks/."""

LIBRARY = [part for part in FLOOR if part not in ("tasks", "flows", "app")]


def module_of(file: Path) -> str:
    top, *rest = file.relative_to(ROOT).with_suffix("").parts
    name = ".".join([TOP_LEVEL[top], *rest])
    return name.removesuffix(".__init__")


FILES = {
    module_of(file): file for folder in TOP_LEVEL for file in sorted((ROOT / folder).rglob("*.py"))
}


def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


def imports(module: str) -> Iterator[str]:
    """All that a module imports, wherever in it; a module rather than a name in it."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else str(node.module)


def part_of(module: str) -> str:
    return module.split(".")[1]


HOUSE = [module for module in FILES if module != "thumbtune"]
"""The door, `thumbtune/__init__.py`, opens what it is asked for."""


def test_every_part_has_its_floor() -> None:
    assert {part_of(module) for module in HOUSE} == set(FLOOR)


@pytest.mark.parametrize("module", HOUSE)
def test_arrows_go_down(module: str) -> None:
    own = part_of(module)
    for other in imports(module):
        if not other.startswith("thumbtune"):
            continue
        assert other != "thumbtune", "the door is for others"
        part = part_of(other)
        assert part == own or FLOOR[part] < FLOOR[own], f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {other for other in imports(module) if other in FILES} for module in FILES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.slow
@pytest.mark.parametrize("module", [m for m in HOUSE if part_of(m) in LIBRARY])
def test_the_method_knows_nothing_of_prefect(module: str) -> None:
    assert not [other for other in imports(module) if other.split(".")[0].startswith("prefect")]


@pytest.mark.slow
def test_the_method_works_where_prefect_is_not_installed() -> None:
    modules = ["thumbtune", *(m for m in HOUSE if part_of(m) in LIBRARY)]
    modules = [module for module in modules if not is_script(module)]
    code = "import sys; sys.modules['prefect'] = None\n"
    code += "\n".join(f"import {module}" for module in modules)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def is_script(module: str) -> bool:
    """Whether a module draws or trains when it is imported as what it is: a script of sample/."""
    return module in ("thumbtune.sample.make_channel", "thumbtune.sample.pretrain_clip")


def tasks_in(module: str) -> list[str]:
    """The functions of a module that are Prefect tasks."""
    return [
        node.name
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(is_task(decorator) for decorator in node.decorator_list)
    ]


def is_task(decorator: ast.expr) -> bool:
    made = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(made) in ("task", "prefect.task", "materialize")


STEPS = [m for m in HOUSE if part_of(m) == "tasks" and m.rpartition(".")[2] not in NO_STEP]


@pytest.mark.parametrize("module", [m for m in STEPS if m != "thumbtune.tasks"])
def test_a_file_that_is_named_for_a_step_holds_the_task_of_that_name(module: str) -> None:
    assert tasks_in(module) == [module.rpartition(".")[2]]


def test_no_other_file_holds_a_task() -> None:
    assert not [module for module in FILES if module not in STEPS and tasks_in(module)]


def test_the_folders_own_words_name_each_step_and_what_stands_beside_them() -> None:
    listed = re.findall(r"`(\w+)`", str(ast.get_docstring(tree_of("thumbtune.tasks"))))
    files = {module.rpartition(".")[2] for module in FILES if part_of(f"{module}.") == "tasks"}
    assert sorted(listed) == sorted(files - {"tasks"})


def test_every_package_is_in_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {m for m, file in FILES.items() if file.name == "__init__.py"}
    assert set(setuptools["packages"]) == packages
    folders = {name: folder for folder, name in TOP_LEVEL.items() if folder != name}
    assert setuptools["package-dir"] == folders


def test_the_loop_of_the_training_can_be_seen_whole() -> None:
    assert len(FILES["thumbtune.learning.training"].read_text().splitlines()) < 200
