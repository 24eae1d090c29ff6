"""How many of a day's quota units of a YouTube key are spent, counted over all runs of a workspace.

YouTube fills a key's quota at midnight Pacific time
(https://developers.google.com/youtube/v3/getting-started#quota). A call that would pass the budget
is refused here, before it is sent.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, ValidationError

from thumbtune.errors import UserError
from thumbtune.store.workspace import Workspace, fingerprint

PACIFIC = ZoneInfo("America/Los_Angeles")


class QuotaError(UserError):
    """The day's budget does not allow another call; the message tells when it goes on."""


class Spent(BaseModel):
    """What a key has spent."""

    day: str = ""
    """ISO 8601, in Pacific time."""
    units: int = Field(0, ge=0)

    @classmethod
    def read(cls, workspace: Workspace, path: str) -> "Spent":
        """From a file; nothing is known if it is not there or damaged."""
        try:
            return cls.model_validate_json(workspace.read(path))
        except (OSError, ValidationError):
            return cls()


def next_day(now: datetime) -> datetime:
    """The next midnight in Pacific time, which may be 23 to 25 hours after the last."""
    here = now.astimezone(PACIFIC)
    tomorrow = here.date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=PACIFIC)


def spent_today(workspace: Workspace, key: str, now: datetime) -> int:
    """Units of this day, as they were counted in a workspace."""
    spent = Spent.read(workspace, f"quota/{fingerprint(key)[:16]}.json")
    return spent.units if spent.day == now.astimezone(PACIFIC).date().isoformat() else 0


def spend(workspace: Workspace, key: str, units: int, daily_quota: int, now: datetime) -> int:
    """Write down the units of a call that is about to be made.

    Safe among the threads and processes of a machine; of two machines that call in the same moment
    one may not be counted. The key itself is not kept, only a hash of it.

    Args:
        units: what the call costs.
        daily_quota: units that may be spent in one day.

    Returns:
        The units of this day, with this call's.

    Raises:
        QuotaError: the call would pass the budget. Nothing is written down.
    """
    name = f"quota/{fingerprint(key)[:16]}"
    day = now.astimezone(PACIFIC).date().isoformat()
    with workspace.lock(f"{name}.lock"):
        spent = Spent.read(workspace, f"{name}.json")
        before = spent.units if spent.day == day else 0
        if before + units > daily_quota:
            again = f"{next_day(now).astimezone():%Y-%m-%d %H:%M %Z}"
            raise QuotaError(
                f"videos.daily_quota: {before} of {daily_quota} quota units are spent today, and "
                f"the next call costs {units}. It goes on at {again} (midnight Pacific time); what "
                "was fetched is kept, so run again then. If the key has more, raise "
                "videos.daily_quota."
            )
        total = before + units
        workspace.write(f"{name}.json", Spent(day=day, units=total).model_dump_json().encode())
    return total
