"""What to run after a training, printed at its end: commands as they are, to copy."""

from thumbtune.channel.registry import (
    DamagedRecordError,
    Registry,
    UnknownChannelError,
    Version,
    find_registry,
)
from thumbtune.commands import channel_options, thumbtune_command, train_command, workspace_options
from thumbtune.parameters import TrainParameters
from thumbtune.store.workspace import Workspace
from thumbtune.use.matching import NoModelError, examples_of

TITLES = 3
"""That the example of `match` compares: one that was written for its picture, and others."""
OWN_CHANNEL = (
    "For your own channel (a key is free: https://console.cloud.google.com/apis/credentials):"
)


def next_steps(parameters: TrainParameters) -> str:
    """The commands that put the champion to use, with a picture and titles of its test split."""
    workspace, parameters = Workspace.find(parameters.workspace), parameters.located()
    registry = Registry(workspace, parameters.source, parameters.channel)
    where = options_for(workspace, registry)
    champion = registry.champion()
    steps = use(champion, registry, where) if champion else without_champion(registry, where)
    if parameters.source == "sample":
        own = train_command("--channel", "@handle", *workspace_options(workspace.location))
        steps += [OWN_CHANNEL, f"  YOUTUBE_API_KEY=… {own}"]
    return "\n".join(steps)


def options_for(workspace: Workspace, registry: Registry) -> list[str]:
    """What tells `thumbtune` which champion is meant; nothing if it would be taken anyway."""
    there = workspace_options(workspace.location)
    try:
        found = find_registry(workspace, None, None).name
    except (UnknownChannelError, DamagedRecordError):  # of another channel
        found = ""
    if found == registry.name:
        return there
    return [*there, *channel_options(registry.source, registry.channel)]


def use(champion: Version, registry: Registry, where: list[str]) -> list[str]:
    """Match titles, search pictures, and both on a page; the page alone if the videos are gone."""
    page = f"  {thumbtune_command('web', *where)}"
    try:
        rows = [row for row in examples_of(registry.workspace, champion) if row.split == "test"]
    except NoModelError:
        rows = []
    if not rows:
        return ["Put it to use:", page]
    titles = list(dict.fromkeys(row.title for row in rows))[:TITLES]
    picture = str(registry.workspace.place(rows[0].image))
    return [
        "Put it to use:",
        f"  {thumbtune_command('match', *where, *after_dashes(picture, *titles))}",
        f"  {thumbtune_command('search', *where, *after_dashes(titles[0]))}",
        page,
    ]


def after_dashes(*words: str) -> list[str]:
    """Words that are no options, though one may begin like one."""
    return ["--", *words] if any(word.startswith("-") for word in words) else list(words)


def without_champion(registry: Registry, where: list[str]) -> list[str]:
    """A model that was kept can be looked at, and made the champion by hand."""
    newest = str(registry.versions()[-1].number)
    return [
        "No version is the champion yet. To see why, and to use this one all the same:",
        f"  {thumbtune_command('models', *where)}",
        f"  {thumbtune_command('rollback', newest, *where)}",
    ]
