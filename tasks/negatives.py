"""Step: give each title a negative, the title that must not win against it."""

from tasks.splits import SplitVideo


class Pair(SplitVideo):
    """A video with its negative title."""

    title_neg: str | None
    """None when negatives.method is `none`."""
