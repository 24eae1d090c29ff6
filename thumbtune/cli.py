"""`thumbtune models` and `thumbtune rollback`: what a channel has, and which of it is in use."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tasks.registry import Registry, UnknownVersionError, Version
from tasks.workspace import Workspace

app = typer.Typer(no_args_is_help=True, add_completion=False)

Folder = Annotated[Path, typer.Option(help="The workspace of the training runs.")]
Channel = Annotated[str | None, typer.Option(help="As it was given to training.")]
Source = Annotated[str, typer.Option(help="As it was given to training.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

METRICS = ("Recall@1", "Recall@5", "MRR")


@app.callback()
def about() -> None:
    """The models that were trained for a channel."""


def registry_at(workspace: Path, source: str, channel: str | None) -> Registry:
    """The registry of a channel that has a model.

    Exits with code 1 and a message if it has none.
    """
    root = workspace.expanduser()
    registry = Registry(Workspace(root=root, id=""), source, channel)
    if not registry.versions():
        known = sorted(path.parent.name for path in root.glob("registry/*/versions"))
        typer.echo(
            f"thumbtune: no model of {channel or source} in {root}. Give --workspace, --source and "
            f"--channel as in the training; there are models of: {', '.join(known) or 'none'}.",
            err=True,
        )
        raise typer.Exit(1)
    return registry


@app.command()
def models(
    channel: Channel = None,
    source: Source = "youtube",
    workspace: Folder = Path("~/.thumbtune"),
    as_json: AsJson = False,
) -> None:
    """List the versions of a channel's model, with their metrics on test, and the champion."""
    registry = registry_at(workspace, source, channel)
    champion = registry.champion()
    current = champion.number if champion else None
    reasons = {decision.version: decision.why for decision in registry.decisions()}
    rows = [
        _row(version, version.number == current, reasons.get(version.number, "not decided on"))
        for version in registry.versions()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=f"Models of {registry.name}")
    for name in ("version", "", "created (UTC)", "videos", *METRICS):
        table.add_column(
            name, justify="right" if name in ("version", "videos", *METRICS) else "left"
        )
    table.add_column("what became of it", overflow="fold")
    for row in rows:
        table.add_row(
            str(row["version"]),
            "champion" if row["champion"] else "" if row["weights"] else "weights deleted",
            row["created"][:16].replace("T", " "),
            str(row["videos"]),
            *(f"{row['metrics'][name]:.3f}" if name in row["metrics"] else "" for name in METRICS),
            row["why"],
        )
    Console().print(table)


def _row(version: Version, is_champion: bool, why: str) -> dict[str, Any]:
    return {
        "version": version.number,
        "champion": is_champion,
        "created": version.created.isoformat(),
        "videos": len(version.seen),
        "metrics": version.metrics,
        "model": version.model.path,
        "weights": Path(version.model.path).exists(),
        "why": why,
    }


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(help="Number of the version to use from now on.")],
    channel: Channel = None,
    source: Source = "youtube",
    workspace: Folder = Path("~/.thumbtune"),
    why: Annotated[str, typer.Option(help="Kept in the history.")] = "rolled back by hand",
) -> None:
    """Make an earlier version the champion; later runs do not undo it with the same model."""
    registry = registry_at(workspace, source, channel)
    try:
        registry.roll_back(version, why)
    except UnknownVersionError as error:
        typer.echo(f"thumbtune: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Champion of {registry.name}: version {version}")


if __name__ == "__main__":
    app()
