"""How champions did on videos that came after them: `registry/<channel>/field/000001.json`."""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from thumbtune.channel.registry import Registry
from thumbtune.metrics import PRIMARY

FOLDER = "field"


class FieldScore(BaseModel):
    """How a champion did on the videos that came after it, before anything learned from them."""

    model_config = ConfigDict(frozen=True)

    number: int
    version: int
    at: AwareDatetime
    videos: list[str]
    """Ids."""
    gallery: int
    """Titles that each was ranked among."""
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 %, over the videos."""
    promised: dict[str, float]
    """What it measured when it was trained, among as many titles."""

    @property
    def has_drifted(self) -> bool:
        """Whether the whole interval of the primary metric lies below what was promised."""
        return PRIMARY in self.promised and self.intervals[PRIMARY][1] < self.promised[PRIMARY]

    def __str__(self) -> str:
        low, high = self.intervals[PRIMARY]
        promised = self.promised.get(PRIMARY)
        before = "" if promised is None else f"; when it was trained {promised:.3f}"
        return (
            f"{PRIMARY} {self.metrics[PRIMARY]:.3f} (95 % {low:.3f} to {high:.3f}) on "
            f"{len(self.videos)} later videos, each among {self.gallery} titles{before}"
            f"{', which it no longer reaches' if self.has_drifted else ''}"
        )


def keep_score(registry: Registry, score: FieldScore) -> bool:
    """Add it to the champion's record; False if the last one is of the same videos.

    Another run may be faster: then its score stays, which is of the same champion.
    """
    last = last_scores(registry).get(score.version)
    if last and last.videos == score.videos:
        return False
    made = registry.append_after(
        FOLDER, score.number - 1, lambda number: score.model_copy(update={"number": number})
    )
    return made is not None


def last_scores(registry: Registry) -> dict[int, FieldScore]:
    """Version → its newest score."""
    return {score.version: score for score in registry.records(FOLDER, FieldScore)}
