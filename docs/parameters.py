"""Writes docs/parameters.md from the parameter models: `python docs/parameters.py`."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from thumbtune.parameters import SweepParameters, TrainParameters, WatchParameters

FLOWS: dict[str, type[BaseModel]] = {
    "thumbtune train": TrainParameters,
    "thumbtune sweep": SweepParameters,
    "thumbtune watch": WatchParameters,
}
INTRODUCTION = """\
# Parameters

Made by `python docs/parameters.py` from [thumbtune/parameters.py](../thumbtune/parameters.py);
do not edit it by hand.

The same parameters are the command line (`--training.epochs 4`), the form in the Prefect UI and
the `parameters:` of prefect.yaml and channels.yaml (`training: {epochs: 4}`). `--parameters FILE`
reads them from a JSON file first. What a run of a deployment leaves out of a stage such as
`training` has the deployment's value; what that leaves out has the default below.
"""


def page() -> str:
    """The whole page as markdown."""
    parts = [INTRODUCTION]
    known: set[str] = set()
    for script, model in FLOWS.items():
        schema = model.model_json_schema()
        rows = [row for row in _rows(schema, schema.get("$defs", {}), "") if row not in known]
        known |= set(rows)
        shared = (
            " It takes those of `thumbtune train` as well." if script == "thumbtune sweep" else ""
        )
        head = "| parameter | values | default | |\n| --- | --- | --- | --- |"
        parts.append(f"## {script}\n\n{model.__doc__}{shared}\n\n{head}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _rows(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in schema["properties"].items():
        if "$ref" in field:
            stage = definitions[field["$ref"].rpartition("/")[2]]
            yield from _rows(stage, definitions, f"{prefix}{name}.")
            continue
        default = json.dumps(field.get("default"))
        cells = (f"`{prefix}{name}`", _values(field), f"`{default}`", field["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(field: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if "anyOf" in field:  # the other choice is to leave it out
        return _values(next(choice for choice in field["anyOf"] if choice["type"] != "null"))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_values(field['items'])}"
    names = {"integer": "whole number", "number": "number", "boolean": "true, false"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]:,.10g}" for key, sign in bounds.items() if key in field]
    words = "path" if field.get("format") == "path" else names.get(field["type"], "text")
    return " ".join([words, " and ".join(limits)]).strip()


def main() -> None:
    """Write it where the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.parse_args().output.write_text(page())


if __name__ == "__main__":
    main()
