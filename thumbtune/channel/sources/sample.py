"""Source `sample`: the bundled channel."""

from pathlib import Path

from thumbtune.channel.source import ReadSecret, Tell
from thumbtune.channel.sources.folder import Folder
from thumbtune.parameters import TrainParameters
from thumbtune.sample import CHANNEL


class Sample(Folder):
    """A folder that came with thumbtune."""

    name = "sample"
    channel_is = ""

    def folder_of(self, channel: str) -> Path:
        """Always the same."""
        return CHANNEL

    def absolute(self, channel: str) -> str:
        """It has no name."""
        return channel

    def channel_id(self, channel: str) -> str:
        """Empty, for there is but one; whoever names a channel means another."""
        return channel

    def public_name(self, channel: str) -> str:
        """For cards."""
        return "thumbtune's sample channel"

    def check(self, parameters: TrainParameters, read: ReadSecret, tell: Tell) -> None:
        """Nothing can be missing."""
