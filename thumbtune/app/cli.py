"""The command line `thumbtune`: from a channel's first training to the use of its models.

`train`, `sweep` and `watch` run the flows, `demo` the first of them on what is bundled. `match`
tells how well titles fit a thumbnail, `search` finds thumbnails by words or by a picture, `index`
prepares a folder for it; `web` does both on a page. `models`, `runs` and `rollback` are about which
model is in use, `shrink` about the disk, `doctor` about this machine. torch and Prefect are
imported where they are needed, since that takes seconds.
"""

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thumbtune.imports import many_imports
from thumbtune.metrics import LISTED

if TYPE_CHECKING:
    from thumbtune.app.doctor import Check
    from thumbtune.channel.field_scores import FieldScore
    from thumbtune.channel.registry import Registry, Version
    from thumbtune.store.workspace import Workspace
    from thumbtune.use.matching import Fit, Matcher

app = typer.Typer(no_args_is_help=True)
TRAIN, USE, VERSIONS = "Train", "Use", "Versions"
"""What `--help` groups the commands by."""
FORWARDED: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
}
"""Of commands whose words a flow reads itself: it has every parameter as an option."""
DEMO = {
    "source": "sample",
    "model": "sample",
    "negatives": {"text_model": "sample"},
    "training": {"epochs": 10, "learning_rate": 0.001},
}
"""As the deployment `sample` of prefect.yaml has it: the article's two epochs at 0.0001 hardly
move so small a model."""

Place = Annotated[
    str, typer.Option(help="The workspace of the training runs: a local path or a URL.")
]
Channel = Annotated[
    str | None,
    typer.Option(help="In any spelling; not needed if one channel has models."),
]
Source = Annotated[str | None, typer.Option(help="As it was given to training.")]
Model = Annotated[
    str | None,
    typer.Option(help="Any CLIP instead of the champion: a folder, a hub id or `sample`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

WORKSPACE = "~/.thumbtune"
"""As `thumbtune.commands` has it, which `--help` does without."""


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"thumbtune {version('thumbtune')}")
        raise typer.Exit


@app.callback()
def about(
    asked: Annotated[
        bool, typer.Option("--version", help="Print it.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Adapt CLIP to a channel's titles and thumbnails, and put it to use."""


def _start(flow: str, context: typer.Context, given: dict[str, Any] | None = None) -> None:
    """Run a flow with the words of this command; its mistakes are told before it is imported."""
    from thumbtune.flows.early import begin

    begin(flow, context.args, context.command_path, given)
    module = import_module(f"thumbtune.flows.{flow}_flow")
    raise typer.Exit(module.main(context.args, given))


@app.command(rich_help_panel=TRAIN, **FORWARDED)
def train(context: typer.Context) -> None:
    """Train on a channel: `thumbtune train @handle`."""
    _start("train", context)


@app.command(rich_help_panel=TRAIN, **FORWARDED)
def demo(context: typer.Context) -> None:
    """Train the bundled CLIP on the bundled channel: no key, no network."""
    _start("train", context, DEMO)


@app.command(rich_help_panel=TRAIN, **FORWARDED)
def sweep(context: typer.Context) -> None:
    """Search better hyperparameters for a channel."""
    _start("sweep", context)


@app.command(rich_help_panel=TRAIN, **FORWARDED)
def watch(context: typer.Context) -> None:
    """Look for new videos of the channels in channels.yaml, and start training where it is due."""
    _start("watch", context)


def _say(text: str, err: bool = False) -> None:
    """Print text, in which a title or an error's words command nothing to the terminal."""
    from thumbtune.text.escaping import for_terminal

    typer.echo(for_terminal(text), err=err)


def _text(text: object) -> Text:
    """The same for a table; square brackets in it are no markup."""
    from thumbtune.text.escaping import for_terminal

    return Text(for_terminal(str(text)))


@contextmanager
def errors_in_words() -> Iterator[None]:
    """End with code 1 and one sentence; only what nobody expects has a traceback."""
    from thumbtune.errors import UserError
    from thumbtune.store.disk import in_plain_words

    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if not isinstance(error, (UserError, OSError)):
            _say("".join(traceback.format_exception(error)), err=True)
        _say(f"thumbtune: {in_plain_words(error)}", err=True)
        raise typer.Exit(1) from None


def registry_at(workspace: str, source: str | None, channel: str | None) -> "Registry":
    """The registry of a channel that has a model; nothing is made where there is none."""
    from thumbtune.channel.registry import find_registry
    from thumbtune.store.workspace import Workspace

    return find_registry(Workspace.find(workspace), source, channel)


def champion_at(
    workspace: str, source: str | None, channel: str | None
) -> "tuple[Workspace, Version]":
    """The workspace, and the version in use of a channel."""
    from thumbtune.use.matching import champion_of

    registry = registry_at(workspace, source, channel)
    return registry.workspace, champion_of(registry)


@app.command(rich_help_panel=USE)
def match(
    image: Annotated[Path, typer.Argument(help="A JPEG, PNG, WebP or GIF.")],
    titles: Annotated[list[str] | None, typer.Argument(help="Titles to choose from.")] = None,
    file: Annotated[
        str | None,
        typer.Option("--titles", help="File of titles, one a line; `-` for standard input."),
    ] = None,
    untouched: Annotated[
        bool, typer.Option("--untouched", help="Beside it what the untouched model says.")
    ] = False,
    model: Model = None,
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Rank titles by how well they fit a thumbnail, the best first.

    `percentile` is the share of the channel's own pairs, of those not trained on, whose cosine is
    lower: 50 is like a typical pair. `rank` is where the title would stand among the channel's
    own titles for this picture.
    """
    if model and untouched:
        raise typer.BadParameter(
            "--untouched is what the champion was trained from; leave out --model."
        )
    if not titles and not file:
        raise typer.BadParameter("Give a title, or --titles FILE.")
    with errors_in_words():
        with many_imports():
            from thumbtune.use.matching import Matcher, counted

        asked = [*(titles or []), *(_lines(file) if file else [])]
        if model:
            matchers = [Matcher.of_model(model)]
        else:
            place, version = champion_at(workspace, source, channel)
            both = (False, True) if untouched else (False,)
            matchers = [Matcher.of_version(place, version, old) for old in both]
        first = matchers[0]
        picture = first.read_picture(image)
        columns = [matcher.rank_titles(picture, asked) for matcher in matchers]
        if first.left_out:
            _say(
                f"Left out of the channel's own pairs: {counted(first.left_out)}; training fetches "
                "again what can be fetched.",
                err=True,
            )
    rows = [[fit, *_same_title(fit, columns[1:])] for fit in columns[0]]
    if as_json:
        _print_json(
            {
                "models": [{"name": m.name, "typical": m.typical} for m in matchers],
                "titles": [
                    row[0].model_dump() | ({"untouched": row[1].model_dump()} if untouched else {})
                    for row in rows
                ],
            }
        )
        return
    _print_fits(image, matchers, rows)


def _lines(file: str) -> list[str]:
    """The lines of a file that are not blank."""
    from thumbtune.errors import UserError

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--titles: {file} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"--titles: {file} is not UTF-8. Save it as UTF-8.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _same_title(fit: "Fit", columns: "list[list[Fit]]") -> "list[Fit]":
    return [next(other for other in column if other.title == fit.title) for column in columns]


def _print_fits(image: Path, matchers: "list[Matcher]", rows: "list[list[Fit]]") -> None:
    table = Table(title=_text(f"Titles for {image.name}"))
    table.add_column("title", overflow="fold")
    for matcher, beside in zip(matchers, ("", "\nuntouched"), strict=False):
        for name in ("cosine", "percentile", "rank") if matcher.typical else ("cosine",):
            table.add_column(name + beside, justify="right", no_wrap=True)
    for row in rows:
        cells = [_text(row[0].title)]
        for fit in row:
            cells.append(Text(f"{fit.cosine:.3f}"))
            if fit.percentile is not None:
                cells += [Text(f"{fit.percentile:.0f}"), Text(f"{fit.rank}/{fit.of}")]
        table.add_row(*cells)
    console = Console()
    console.print(table)
    for matcher in matchers:
        if matcher.typical:
            low, median, high = matcher.typical
            console.print(
                _text(
                    f"The channel's own pairs by {matcher.name}: cosine {median:.3f}, "
                    f"half of them between {low:.3f} and {high:.3f}"
                )
            )


@app.command(rich_help_panel=USE)
def search(
    words: Annotated[str | None, typer.Argument(help="What the picture should show.")] = None,
    image: Annotated[Path | None, typer.Option(help="Find pictures like this one.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 12,
    folder: Annotated[
        Path | None, typer.Option(help="A folder that was indexed, instead of the channel.")
    ] = None,
    model: Model = None,
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Find thumbnails by words or by a picture, the nearest first."""
    if (words is None) == (image is None):
        raise typer.BadParameter("Give either words or --image FILE.")
    with errors_in_words():
        with many_imports():
            from thumbtune.use.indexing import (
                channel_place,
                folder_place,
                index_channel,
                open_index,
                search_picture,
                search_words,
            )
            from thumbtune.use.matching import counted

        asked = (model, channel, source, workspace)
        gone: dict[str, int] = {}
        if folder:
            place, matcher = _for_folder(*asked)
            index = open_index(place, folder_place(matcher.fingerprint, folder))
        else:
            place, version, matcher = _by_champion(*asked)
            gone = index_channel(place, version, matcher).dropped
            index = open_index(place, channel_place(matcher.fingerprint, version))
        if image:
            hits = search_picture(index, matcher, matcher.read_picture(image), top)
        else:
            hits = search_words(index, matcher, words or "", top)
        _say_left_out(counted({**gone, **hits.left_out}), folder)
    if as_json:
        _print_json([hit.model_dump() for hit in hits])
        return
    table = Table(title=_text(f"{len(hits)} of {len(index)} pictures by {matcher.name}"))
    table.add_column("cosine", justify="right")
    table.add_column("title", overflow="fold")
    table.add_column("picture", overflow="fold")
    for hit in hits:
        table.add_row(f"{hit.cosine:.3f}", _text(hit.title), _text(hit.image))
    Console().print(table)


def _say_left_out(counts: str, folder: Path | None) -> None:
    """Tell of pictures that are not shown, on standard error: JSON stays JSON."""
    if not counts:
        return
    mend = f"`thumbtune index {folder}` brings the index up to date"
    mend = mend if folder else "training fetches again what can be fetched"
    _say(f"Left out, since the index was made: {counts}; {mend}.", err=True)


@app.command(rich_help_panel=USE)
def index(
    folder: Annotated[
        Path | None, typer.Argument(help="Pictures, anywhere below it; else the channel's.")
    ] = None,
    model: Model = None,
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Prepare a folder, or the channel, for `search`; only what is new is embedded."""
    with errors_in_words():
        with many_imports():
            from thumbtune.use.indexing import index_channel, index_folder

        asked = (model, channel, source, workspace)
        if folder:
            place, matcher = _for_folder(*asked)
            done = index_folder(place, folder, matcher)
        else:
            place, version, matcher = _by_champion(*asked)
            done = index_channel(place, version, matcher)
    if as_json:
        _print_json(done.model_dump())
        return
    _say(
        f"{done.pictures} pictures indexed by {matcher.name}: {done.added} added, "
        f"{done.removed} removed"
    )
    if done.recall_at_10 is not None:
        typer.echo(f"Approximate search, recall@10 against the exact one: {done.recall_at_10:.3f}")
    for reason, count in done.dropped.items():
        _say(f"Left out: {count} ({reason})")


def _by_champion(
    model: str | None, channel: str | None, source: str | None, workspace: str
) -> "tuple[Workspace, Version, Matcher]":
    """The champion's version, whose channel it is about, and the model to search by."""
    from thumbtune.use.matching import Matcher

    place, version = champion_at(workspace, source, channel)
    matcher = Matcher.of_model(model) if model else Matcher.of_version(place, version)
    return place, version, matcher


def _for_folder(
    model: str | None, channel: str | None, source: str | None, workspace: str
) -> "tuple[Workspace, Matcher]":
    """The model to search a folder by; without `model` it is the champion."""
    from thumbtune.store.workspace import Workspace
    from thumbtune.use.matching import Matcher

    if model:
        return Workspace.open(workspace), Matcher.of_model(model)
    place, _, matcher = _by_champion(None, channel, source, workspace)
    return place, matcher


def _print_json(value: Any) -> None:
    from thumbtune.text.escaping import json_for_terminal

    typer.echo(json_for_terminal(json.dumps(value, indent=1, ensure_ascii=False)))


@app.command(rich_help_panel=VERSIONS)
def models(
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """List the versions of a channel's model, with their metrics, and the champion."""
    from thumbtune.channel.field_scores import last_scores

    with errors_in_words():
        registry = registry_at(workspace, source, channel)
        champion = registry.champion()
        current = champion.number if champion else None
        scores = last_scores(registry)
        reasons = registry.reasons()
        rows = [
            _row(registry.workspace, version, version.number == current, reasons)
            | {"recipe": version.recipe, "field": _field(scores.get(version.number))}
            for version in registry.versions()
        ]
    if as_json:
        _print_json(rows)
        return
    table = Table(title=_text(f"Models of {registry.name}"))
    for name in ("version", "", "created (UTC)", "videos", "among titles", *LISTED):
        table.add_column(name, justify="left" if name in ("", "created (UTC)") else "right")
    for row in rows:
        table.add_row(
            str(row["version"]),
            "champion" if row["champion"] else "" if row["weights"] else "weights deleted",
            row["created"][:16].replace("T", " "),
            str(row["videos"]),
            f"{row['titles']:.0f}" if row["titles"] else "–",
            *(f"{row['metrics'][name]:.3f}" if name in row["metrics"] else "" for name in LISTED),
        )
    console = Console()
    console.print(table)
    for row in rows:
        console.print(_text(f"Version {row['version']} {row['why']}"))
        if row["field"]:
            console.print(_text(f"  in the field: {row['field']['told']}"))


def _field(score: "FieldScore | None") -> dict[str, Any] | None:
    if score is None:
        return None
    told = {"told": str(score), "has_drifted": score.has_drifted}
    return score.model_dump(mode="json", exclude={"number", "version"}) | told


def _row(
    workspace: "Workspace", version: "Version", is_champion: bool, reasons: dict[int, str]
) -> dict[str, Any]:
    kept = version.model.kept_at(workspace)
    return {
        "version": version.number,
        "champion": is_champion,
        "created": version.created.isoformat(),
        "videos": version.examples.rows,
        "titles": version.gallery,
        "metrics": version.metrics,
        "model": f"{workspace}/{kept}" if kept else version.model.path,
        "weights": version.model.is_there(workspace),
        "why": reasons.get(version.number, "not decided on"),
    }


@app.command(rich_help_panel=VERSIONS)
def runs(
    compare: Annotated[
        bool, typer.Option("--compare", help="The parameters that differ, and the metrics.")
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="So many of the newest versions.")] = 5,
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """List what trainings came to, or compare them: a column each, with 95 % intervals."""
    with errors_in_words():
        from thumbtune.app import comparing

        registry = registry_at(workspace, source, channel)
        versions = registry.versions()[-last:]
    if as_json:
        _print_json(comparing.as_json(versions))
        return
    if not compare:
        _print_runs(registry, versions)
        return
    lines = comparing.differing(versions)
    table = Table(title=_text(f"Versions of {registry.name}"))
    table.add_column("")
    for each in versions:
        table.add_column(str(each.number), overflow="fold")
    for line in [*comparing.measured(versions), *lines]:
        table.add_row(line.name, *map(_text, line.values))
    Console().print(table)
    if not lines:
        _say("All parameters are the same.")


def _print_runs(registry: "Registry", versions: "list[Version]") -> None:
    reasons = registry.reasons()
    for each in versions:
        made = f"{each.created:%Y-%m-%d %H:%M} UTC, {each.examples.rows} videos"
        _say(f"Version {each.number} ({made}): {each.recipe or 'as its parameters say'}")
        _say(f"  {reasons.get(each.number, 'not decided on')}")


@app.command(rich_help_panel=VERSIONS)
def rollback(
    version: Annotated[int, typer.Argument(help="Number of the version to use from now on.")],
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    why: Annotated[str, typer.Option(help="Kept in the history.")] = "rolled back by hand",
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the champion; later runs do not undo it with the same model."""
    with errors_in_words():
        registry = registry_at(workspace, source, channel)
        from thumbtune.use.rolling_back import roll_back

        decision = roll_back(registry, version, why)
    if as_json:
        _print_json(decision.model_dump(mode="json"))
        return
    _say(f"Champion of {registry.name}: version {version}")


@app.command(rich_help_panel=VERSIONS)
def shrink(workspace: Place = WORKSPACE, as_json: AsJson = False) -> None:
    """Make old versions small: what is frozen in them is kept once for all channels."""
    with errors_in_words():
        from thumbtune.store.workspace import Workspace
        from thumbtune.use.shrinking import shrink

        made = list(shrink(Workspace.find(workspace)))
    if as_json:
        _print_json([each._asdict() for each in made])
        return
    for each in made:
        if each.saved or each.unmade:
            told = each.unmade or f"{each.saved / 1e6:,.1f} MB less"
            _say(f"Version {each.version} of {each.channel}: {told}")
    _say(f"{sum(each.saved for each in made) / 1e6:,.1f} MB less in {len(made)} versions")


@app.command(rich_help_panel=USE)
def web(
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets in other machines: set THUMBTUNE_WEB_PASSWORD first.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    root_path: Annotated[
        str, typer.Option(help="Behind a reverse proxy: the path it serves, such as /thumbtune.")
    ] = "",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Behind a reverse proxy: the name it is asked by; several are possible."),
    ] = None,
) -> None:
    """Serve a page on which to match titles, search thumbnails and read the report."""
    with errors_in_words():
        from thumbtune.app.address import check_address
        from thumbtune.extras import check_extra

        check_extra("web", "`thumbtune web`")
        check_address(host, port, root_path, allowed_host or ())
        registry = registry_at(workspace, source, channel)
        from thumbtune.app.web import serve

        serve(registry.workspace, registry, host, port, root_path, allowed_host or ())


@app.command(rich_help_panel=USE)
def serve(
    channel: Channel = None,
    source: Source = None,
    workspace: Place = WORKSPACE,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets in other machines; the service asks for no password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7861,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Behind a reverse proxy: the name it is asked by; several are possible."),
    ] = None,
) -> None:
    """Answer other programs over HTTP: /match, /search, /health, with the JSON of this command."""
    with errors_in_words():
        from thumbtune.app.address import check_address

        check_address(host, port, "", allowed_host or ())
        registry = registry_at(workspace, source, channel)
        with many_imports():
            from thumbtune.app.service import serve as start

        start(registry, host, port, allowed_host or ())


MARKS = {"ok": ("✓", "green"), "note": ("•", "yellow"), "fault": ("✗", "red")}


@app.command(rich_help_panel=TRAIN)
def doctor(
    workspace: Place = WORKSPACE,
    model: Annotated[
        str | None, typer.Option(help="The CLIP that is to be trained; the default one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at what a training needs: key, network, disk, processor, model, Prefect.

    Ends with code 1 if a training of a YouTube channel would fail.
    """
    with errors_in_words():
        from thumbtune.app.doctor import DEFAULT_MODEL, Check, examine

        found: list[Check] = []
        for check in examine(workspace, model or DEFAULT_MODEL):
            found.append(check)
            if not as_json:
                _print_check(check)
    if as_json:
        _print_json([check.model_dump() for check in found])
    raise typer.Exit(any(check.state == "fault" for check in found))


def _print_check(check: "Check") -> None:
    mark, colour = MARKS[check.state]
    line = Text.assemble((mark, colour), f" {check.name:10} ", _text(check.told))
    Console(soft_wrap=True).print(line)


@app.command(rich_help_panel=TRAIN)
def deploy() -> None:
    """Make the Prefect work pool `thumbtune`, and the deployments of prefect.yaml, on the server.

    The server is that of PREFECT_API_URL or of Prefect's profile. Runs work in the folder where
    this was run: the watch reads channels.yaml there.
    """
    from thumbtune.app.deployment import make_deployments

    with errors_in_words():
        make_deployments()


if __name__ == "__main__":
    app()
