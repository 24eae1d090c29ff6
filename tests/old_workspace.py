"""A small workspace as a version of thumbtune leaves it, kept for the versions after it.

`python -m tests.old_workspace` makes it of today's version. What is there already stays as it is.
"""

import os
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_httpserver import HTTPServer

from tests.tiny_clip import save_tiny_clip
from tests.youtube_server import YouTubeServer, make_video

FIXTURES = Path(__file__).parent / "fixtures"
VIDEOS = 24
PICTURES_OF_THE_REPORT = ("report.html", "misses.jpg", "loss_curve.png")
"""Half of its size; nothing reads them but people."""


def serve_channel(youtube: YouTubeServer, videos: int = VIDEOS) -> None:
    """The channel as it was, or with newer videos."""
    youtube.add_channel([make_video(n) for n in range(videos)])


def options(root: Path) -> dict[str, Any]:
    """Of the training that made it, and of those that come after it.

    Args:
        root: has the workspace; the untouched model is made there.
    """
    return {
        "channel": "@tester",
        "model": str(save_tiny_clip(root / "clip")),
        "workspace": root / "workspace",
        "negatives": {"method": "random"},
        "split": {"min_rows": 2},
        "training": {"epochs": 2, "learning_rate": 0.001},
    }


def main() -> None:
    """Train once and pack the workspace."""
    FIXTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, HTTPServer() as http:
        youtube = YouTubeServer(http)
        serve_channel(youtube)
        os.environ["THUMBTUNE_YOUTUBE_API_URL"] = youtube.api_url
        os.environ["THUMBTUNE_PRIVATE_HOSTS"] = "localhost, 127.0.0.1"
        os.environ["YOUTUBE_API_KEY"] = youtube.key
        from thumbtune.flows.train_flow import train

        train(**options(Path(scratch)))
        with tarfile.open(FIXTURES / f"workspace-{version('thumbtune')}.tar.gz", "x:gz") as packed:
            packed.add(Path(scratch) / "workspace", "workspace", filter=_without_pictures)


def _without_pictures(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name in PICTURES_OF_THE_REPORT else member


if __name__ == "__main__":
    main()
