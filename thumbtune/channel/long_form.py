"""Which of the listed videos are learned from."""

from collections import Counter

from thumbtune.channel.listing import Video
from thumbtune.text.titles import is_blank


def keep_long_form(
    videos: list[Video], min_duration_seconds: float
) -> tuple[list[Video], Counter[str]]:
    """Keep videos that are longer than shorts, have an id, a title and a thumbnail; each once."""
    kept: dict[str, Video] = {}
    dropped: Counter[str] = Counter()
    for video in videos:
        if video.id in kept:
            dropped["listed twice"] += 1
        elif is_short(video, min_duration_seconds):
            dropped[f"of {min_duration_seconds:g} s or shorter"] += 1
        elif not video.id:
            dropped["no id"] += 1
        elif is_blank(video.title):
            dropped["no title"] += 1
        elif not video.thumbnails:
            dropped["no thumbnail"] += 1
        else:
            kept[video.id] = video
    return list(kept.values()), dropped


def is_short(video: Video, min_duration_seconds: float) -> bool:
    """Shorts may be as long as the limit itself; a limit of 0 keeps all."""
    seconds = video.duration_seconds
    return seconds is not None and min_duration_seconds > 0 and seconds <= min_duration_seconds
