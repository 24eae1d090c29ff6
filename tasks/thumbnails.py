"""Step: fetch, verify and keep the thumbnails."""

from tasks.negatives import Pair


class Example(Pair):
    """A pair whose thumbnail is in the workspace: one row to train or measure on."""

    image: str
    """File of the thumbnail as it was fetched, relative to the workspace."""
    crop: tuple[int, int, int, int] | None = None
    """Left, upper, right and lower pixel of the picture inside a letterbox; None for all of it."""
