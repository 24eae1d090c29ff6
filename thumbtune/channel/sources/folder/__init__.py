"""Source `folder`: videos that a folder of this machine describes. See docs/folders.md."""

from pathlib import Path

from thumbtune.channel.listing import Listing
from thumbtune.channel.long_form import keep_long_form
from thumbtune.channel.source import ReadSecret, Request, Source, Tell, last_part
from thumbtune.errors import SourceError
from thumbtune.names.dataset_name import absolute_path
from thumbtune.parameters import TrainParameters, VideosParameters
from thumbtune.store.workspace import Workspace


class Folder(Source):
    """A folder with a manifest, or with what yt-dlp wrote."""

    name = "folder"
    channel_is = "a path"
    empty = (
        "the folder describes no videos. Add entries to its manifest, or let yt-dlp write an "
        "info.json for each video."
    )
    mends = {  # noqa: RUF012 - it is a constant
        "live now": "Add videos that are over.",
        "upcoming": "Add videos that are over.",
        "no title": "Fill in the field title.",
        "no thumbnail": "Fill in the field image.",
    }
    otherwise = "Mend its entries, or choose another folder."

    def folder_of(self, channel: str) -> Path:
        """Where its files are."""
        return Path(channel).expanduser()

    def absolute(self, channel: str) -> str:
        """Its absolute path."""
        return absolute_path(Path(channel)) or channel

    def channel_id(self, channel: str) -> str:
        """The path that leads there in the end."""
        return self.absolute(channel)

    def public_name(self, channel: str) -> str:
        """The folder without the way there."""
        return last_part(self.absolute(channel))

    def check(self, parameters: TrainParameters, read: ReadSecret, tell: Tell) -> None:
        """The pictures of the videos that will be learned from are there, or may be fetched."""
        from thumbtune.channel.sources.folder.listing import check_pictures, list_folder

        channel = parameters.channel or ""
        try:
            folder = self.folder_of(channel)
            videos, _ = list_folder(folder)
            kept, _ = keep_long_form(videos, parameters.videos.min_duration_seconds)
            check_pictures(folder, kept, parameters.thumbnails, tell)
        except (OSError, RuntimeError) as error:  # a name too long, a home that nobody has
            raise SourceError(
                f"channel: the folder {channel!r:.200} cannot be read ({error}). Give another."
            ) from None

    def list_videos(
        self, workspace: Workspace, channel: str, parameters: VideosParameters, request: Request
    ) -> Listing:
        """In the order of the manifest or of the file names."""
        from thumbtune.channel.sources.folder.listing import list_folder

        notes: list[str] = []
        videos, unusable = list_folder(self.folder_of(channel), notes.append)
        return Listing(videos=videos, dropped=unusable, notes=notes)

    def stamp(self, channel: str) -> str:
        """Of all files of the folder."""
        from thumbtune.channel.sources.folder.listing import folder_stamp

        folder = self.folder_of(channel)
        return folder_stamp(folder) if folder.is_dir() else ""
