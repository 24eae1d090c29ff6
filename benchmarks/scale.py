"""What do many channels cost, and one large one? `python benchmarks/scale.py`

A stand-in for YouTube on this machine serves channels of made-up videos, whose pictures are
coloured squares: this measures cost, not quality. The bundled small CLIP is trained by a given
recipe; to choose one takes up to 10 s of CPU more a channel, and a cross-fit twice that.

- many: `flows/watch_flow.py --start here` trains 200 channels of 100 videos, one after the other in
  one process; then looks again when nothing is new; then when ten channels have five new videos;
- one: `flows/train_flow.py` trains a channel of 20,000 videos; then again with 100 new ones.

CPU time and memory are of the flow's process and, apart, of Prefect's own server; the stand-in is a
process of its own and not counted. Prints markdown.
"""

import argparse
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = {
    "model": "sample",
    "negatives": {"text_model": "sample"},
    "thumbnails": {"quality": "high"},
    "training": {"recipe": "given"},
    "evaluation": {"method": "holdout"},
}


@dataclass
class Stand:
    """The stand-in, seen from here."""

    pipe: Connection
    environment: dict[str, str]

    def ask(self, *question: Any) -> Any:
        """Have the stand-in do something; its answer."""
        self.pipe.send(question)
        return self.pipe.recv()


def serve(pipe: Connection) -> None:
    """The stand-in: answers YouTube's calls by HTTP, and ours by the pipe."""
    from pytest_httpserver import HTTPServer  # what takes long to import is asked for where used

    from tests.youtube_server import YouTubeServer, make_video
    from thumbtune.sample.make_channel import title
    from thumbtune.sample.scenes import random_scene
    from thumbtune.store.workspace import fingerprint

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    http = HTTPServer(threaded=True)
    http.start()
    youtube = YouTubeServer(http)
    rng = random.Random(0)
    number = 0

    def videos(count: int, first_day: int) -> list[dict[str, Any]]:
        nonlocal number
        made = []
        for day in range(first_day, first_day + count):
            number += 1
            words = f"{title(random_scene(rng), number, rng)} ({number})"
            made.append(make_video(number, title=words, day=day))
        return made

    pipe.send((youtube.api_url, youtube.feed_url, youtube.key))
    while True:
        match pipe.recv():
            case ("add", channels, count):
                for place in range(channels):
                    id_ = "UC" + fingerprint(str(place))[:22]
                    youtube.add_channel(videos(count, 0), f"@channel-{place}", id_)
                pipe.send(None)
            case ("grow", channels, count):
                for channel in list(youtube.channels.values())[:channels]:
                    channel["videos"] += videos(count, len(channel["videos"]))
                pipe.send(None)
            case ("count",):
                asked = youtube.units, youtube.image_requests.total()
                youtube.units = 0
                youtube.image_requests.clear()
                youtube.requests.clear()
                pipe.send(asked)


@contextmanager
def stand_in(home: Path) -> Iterator[Stand]:
    """Start the stand-in, and give the environment in which flows find it."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    api, feed, key = ours.recv()
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PYTHONPATH": str(ROOT),
        "THUMBTUNE_PRIVATE_HOSTS": "localhost",
        "THUMBTUNE_YOUTUBE_API_URL": api,
        "THUMBTUNE_YOUTUBE_FEED_URL": feed,
        "YOUTUBE_API_KEY": key,
    }
    try:
        yield Stand(ours, environment)
    finally:
        process.kill()


@dataclass
class Usage:
    """What a command took, looked at once a second."""

    seconds: float = 0
    flow_cpu: float = 0
    server_cpu: float = 0
    flow_memory: list[float] = field(default_factory=list)
    """In megabytes, at each look."""
    server_memory: float = 0

    def sample(self, flow: psutil.Process) -> None:
        """Look at the processes once."""
        times = flow.cpu_times()
        self.flow_cpu = times.user + times.system
        self.flow_memory.append(flow.memory_info().rss / 1e6)
        for server in flow.children(recursive=True):
            times = server.cpu_times()
            self.server_cpu = max(self.server_cpu, times.user + times.system)
            self.server_memory = max(self.server_memory, server.memory_info().rss / 1e6)


def run(arguments: Sequence[str], environment: dict[str, str], log: Path) -> Usage:
    """Run a flow to its end, and watch it."""
    from tests.server_logs import faults

    usage, started = Usage(), time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        watched, is_over = psutil.Process(process.pid), threading.Event()

        def watch() -> None:
            while not is_over.wait(1):
                try:
                    usage.sample(watched)
                except psutil.NoSuchProcess:
                    continue

        thread = threading.Thread(target=watch)
        thread.start()
        code = process.wait()
        is_over.set()
        thread.join()
    if code:
        raise SystemExit(f"{' '.join(arguments)} failed: {log}")
    if found := faults(log):  # of Prefect's server too, which writes there
        raise SystemExit("\n\n".join(found))
    usage.seconds = time.monotonic() - started
    return usage


def size(folder: Path) -> float:
    """Megabytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def new_folder(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


HEADINGS = (
    "what",
    "time",
    "CPU: flow",
    "CPU: Prefect's server",
    "CPU per channel",
    "memory: after a quarter, at most",
    "server's memory",
    "quota units",
    "pictures asked for",
    "workspace",
    "Prefect's database",
)


def row(what: str, channels: int, usage: Usage, stand: Stand, home: Path) -> str:
    """One line of the table."""
    units, pictures = stand.ask("count")
    memory = usage.flow_memory
    cells = (
        what,
        f"{usage.seconds:,.0f} s",
        f"{usage.flow_cpu:,.0f} s",
        f"{usage.server_cpu:,.0f} s",
        f"{(usage.flow_cpu + usage.server_cpu) / channels:,.2f} s",
        f"{max(memory[: len(memory) // 4 + 1]):,.0f}, {max(memory):,.0f} MB",
        f"{usage.server_memory:,.0f} MB",
        f"{units:,}",
        f"{pictures:,}",
        f"{size(home / 'workspace'):,.0f} MB",
        f"{size(home / 'prefect'):,.0f} MB",
    )
    return f"| {' | '.join(cells)} |"


def many(home: Path, channels: int, videos: int, growing: int, looks: int) -> Iterator[str]:
    """Many channels, one after the other in one process; lines of the table.

    Of the three looks (all is new, nothing, something) the first `looks` are taken.
    """
    file = home / "channels.yaml"
    names = [f"@channel-{place}" for place in range(channels)]
    defaults = {**SETTINGS, "workspace": str(home / "workspace")}
    file.write_text(yaml.safe_dump({"defaults": defaults, "channels": names}))
    command = ["flows/watch_flow.py", "--start", "here", "--channels", str(file)]
    with stand_in(home) as stand:
        stand.ask("add", channels, videos)
        names_of_looks = ("trained", "nothing new", f"{growing} with 5 new videos")
        for place, what in enumerate(names_of_looks[:looks]):
            if place == 2:
                stand.ask("grow", growing, 5)
            usage = run(command, stand.environment, home / f"many-{place}.log")
            name = f"{channels:,} × {videos:,}: {what}"
            yield row(name, growing if place == 2 else channels, usage, stand, home)


def one(home: Path, videos: int, new: int) -> Iterator[str]:
    """One large channel; lines of the table."""
    command = ["flows/train_flow.py", "--channel", "@channel-0", "--model", "sample"]
    command += ["--negatives.text_model", "sample", "--thumbnails.quality", "high"]
    command += ["--training.recipe", "given", "--evaluation.method", "holdout"]
    command += ["--workspace", str(home / "workspace"), "--videos.expiration_hours", "0"]
    with stand_in(home) as stand:
        stand.ask("add", 1, videos)
        for place, what in enumerate(("trained", f"{new} new videos")):
            if place == 1:
                stand.ask("grow", 1, new)
            usage = run(command, stand.environment, home / f"one-{place}.log")
            yield row(f"1 × {videos:,}: {what}", 1, usage, stand, home)


def whole(folder: Path, asked: argparse.Namespace) -> Iterator[str]:
    """All lines of the table."""
    many_home, one_home = new_folder(folder / "many"), new_folder(folder / "one")
    yield from many(many_home, asked.channels, asked.videos, asked.growing, looks=3)
    yield from one(one_home, asked.large, asked.new)


def quick(folder: Path) -> Iterator[str]:
    """The first line of the table, of one small channel."""
    return many(new_folder(folder / "many"), channels=1, videos=60, growing=1, looks=1)


def main() -> None:
    """Read the arguments, and print the table as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=200)
    parser.add_argument("--videos", type=int, default=100, help="of each of them")
    parser.add_argument("--growing", type=int, default=10, help="channels that get new videos")
    parser.add_argument("--large", type=int, default=20_000, help="videos of the one channel")
    parser.add_argument("--new", type=int, default=100, help="its new videos")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one small channel, looked at once, to see that it runs",
    )
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # `tests` is not installed; the stand-in's process sees it too
    print(f"| {' | '.join(HEADINGS)} |")
    print("| --- |" + " ---: |" * (len(HEADINGS) - 1))
    print(f"In {(folder := Path(tempfile.mkdtemp()))}", file=sys.stderr)
    for line in quick(folder) if asked.quick else whole(folder, asked):
        print(line, flush=True)


if __name__ == "__main__":
    main()
