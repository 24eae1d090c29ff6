"""What a run has before it: videos, downloads, encoding, and about how long that takes."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from thumbtune.channel.listing import Video
from thumbtune.clip.rates import known_rate, measure_rate
from thumbtune.data.thumbnails import count_stored
from thumbtune.progress import minutes
from thumbtune.store.model_reference import ModelReference
from thumbtune.store.workspace import Workspace


class Ahead(BaseModel):
    """What is ahead of a run whose videos are listed."""

    model_config = ConfigDict(frozen=True)

    videos: int
    listed: str
    """What listing them has cost."""
    stored: int
    """Thumbnails that need not be fetched."""
    encode: int
    """Pictures that have to pass through the towers."""
    seconds: float
    """That this will take, about; downloads are not in it."""

    def __str__(self) -> str:
        fetch = self.videos - self.stored
        told = f"Ahead: {self.videos} videos ({self.listed}); "
        told += f"{self.stored} thumbnails stored, {fetch} to fetch; "
        if not self.encode:
            return f"{told}nothing to encode"
        return f"{told}{self.encode} pictures to encode, {minutes(self.seconds)} on this machine"


def look_ahead(
    workspace: Workspace, videos: Sequence[Video], listed: str, model: ModelReference, anew: bool
) -> Ahead:
    """Count what is to be done; a model that is new to this machine is measured first.

    Args:
        listed: what listing the videos has cost now.
        anew: whether all thumbnails are fetched again.
    """
    known, rate = count_stored(workspace, videos), known_rate(workspace, model)
    encode = len(videos) if rate is None else len(videos) - known
    seconds = encode * (rate or measure_rate(model)) if encode else 0.0
    stored = sum("file" in video.thumbnails for video in videos) if anew else known
    return Ahead(videos=len(videos), listed=listed, stored=stored, encode=encode, seconds=seconds)
