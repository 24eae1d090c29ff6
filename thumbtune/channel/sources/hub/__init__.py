"""Source `hub`: a dataset of the Hugging Face hub, or a folder that holds one."""

from thumbtune.channel.listing import Listing
from thumbtune.channel.source import ReadSecret, Request, Source, Tell, last_part
from thumbtune.errors import SourceError
from thumbtune.names.dataset_name import absolute_path, local_folder
from thumbtune.parameters import TrainParameters, VideosParameters
from thumbtune.store.workspace import Workspace


class Hub(Source):
    """A dataset by its id, or by its folder; `:name` behind it chooses a configuration."""

    name = "hub"
    channel_is = "a dataset id"
    brings = ("split", "negatives")
    empty = "the dataset has no rows. Choose another dataset."
    mends = {  # noqa: RUF012 - it is a constant
        "no title": "Fill in the column title.",
        "no thumbnail": "Fill in the column image or thumbnail_url.",
    }
    otherwise = "Choose another dataset."

    def absolute(self, channel: str) -> str:
        """A folder by its absolute path; an id stays as it is."""
        folder, configuration = local_folder(channel)
        place = absolute_path(folder) if folder else None
        if place is None:
            return channel
        return place if configuration is None else f"{place}:{configuration}"

    def channel_id(self, channel: str) -> str:
        """A folder's path, or the id, in which capitals do not count."""
        is_local = local_folder(channel)[0]
        return self.absolute(channel) if is_local else super().channel_id(channel)

    def public_name(self, channel: str) -> str:
        """The whole id, or a folder without the way there."""
        return last_part(self.absolute(channel)) if local_folder(channel)[0] else channel

    def check(self, parameters: TrainParameters, read: ReadSecret, tell: Tell) -> None:
        """What can be no id of the hub is a folder that is there."""
        channel = parameters.channel or ""
        if channel.startswith(("/", "~", ".")) and not local_folder(channel)[0]:
            raise SourceError(
                f"channel: there is no folder {channel!r}. Give a saved dataset, or a dataset id "
                "of the Hugging Face hub such as owner/name."
            )

    def list_videos(
        self, workspace: Workspace, channel: str, parameters: VideosParameters, request: Request
    ) -> Listing:
        """Split after split."""
        from thumbtune.channel.sources.hub.listing import list_hub  # with `datasets`, takes seconds

        notes: list[str] = []
        videos = list_hub(workspace, channel, notes.append)
        return Listing(videos=videos, notes=notes)

    def stamp(self, channel: str) -> str:
        """Of all files of its folder, if it has one."""
        from thumbtune.channel.sources.folder.listing import folder_stamp

        folder, _ = local_folder(channel)
        return folder_stamp(folder) if folder else ""
