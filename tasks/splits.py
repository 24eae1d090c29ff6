"""Step: divide the videos into train, valid and test."""

from typing import Literal

from tasks.sources import Video

Split = Literal["train", "valid", "test"]


class SplitVideo(Video):
    """A video with its split."""

    split: Split
