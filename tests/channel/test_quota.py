"""The budget of YouTube's quota units: counted over runs and processes, by day and by key."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.channel.test_youtube import listing
from tests.forks import FORKS
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.listing import Listing
from thumbtune.channel.quota import PACIFIC, QuotaError, next_day, spend
from thumbtune.store.workspace import Workspace

NOON = datetime(2026, 11, 24, 20, tzinfo=UTC)  # noon in California


def test_units_add_up_until_the_next_call_would_pass_the_budget(workspace: Workspace) -> None:
    assert [spend(workspace, "key", 100, 250, NOON) for _ in range(2)] == [100, 200]
    with pytest.raises(QuotaError, match=r"videos\.daily_quota: 200 of 250 .* next call costs 100"):
        spend(workspace, "key", 100, 250, NOON)
    assert spend(workspace, "key", 50, 250, NOON) == 250  # what was refused is not counted


def test_the_error_tells_when_it_goes_on(workspace: Workspace) -> None:
    at = datetime(2026, 11, 25, 8, tzinfo=UTC).astimezone()
    with pytest.raises(QuotaError, match=rf"It goes on at {at:%Y-%m-%d %H:%M} .*midnight Pacific"):
        spend(workspace, "key", 2, 1, NOON)


@pytest.mark.compatibility
def test_the_day_is_californias(workspace: Workspace) -> None:
    midnight = datetime(2026, 11, 25, 8, tzinfo=UTC)
    spend(workspace, "key", 10, 10, midnight - timedelta(seconds=1))
    with pytest.raises(QuotaError):
        spend(workspace, "key", 10, 10, midnight - timedelta(seconds=1))
    assert spend(workspace, "key", 10, 10, midnight) == 10


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)))
def test_the_next_day_is_the_first_moment_of_another_date(now: datetime) -> None:
    start = next_day(now)
    assert timedelta(0) < start - now <= timedelta(hours=25)
    first, last = (t.astimezone(PACIFIC).date() for t in (start, start - timedelta(microseconds=1)))
    assert last < first
    assert last == now.astimezone(ZoneInfo("America/Los_Angeles")).date()


def test_each_key_has_its_own_budget_and_is_not_written_down(workspace: Workspace) -> None:
    for key in ("AIza-one", "AIza-two"):
        assert spend(workspace, key, 10, 10, NOON) == 10
    files = [file for file in (workspace.root / "quota").iterdir() if file.suffix == ".json"]
    assert len(files) == 2
    assert not [f for f in files if "AIza" in f.name or "AIza" in f.read_text()]


def test_a_damaged_count_begins_again(workspace: Workspace) -> None:
    spend(workspace, "key", 10, 100, NOON)
    [file] = (workspace.root / "quota").glob("*.json")
    file.write_text('{"day": "2026-11')
    assert spend(workspace, "key", 10, 100, NOON) == 10


def spend_some(root: Path) -> int:
    """Spend single units from several threads until there are none left; how many."""
    workspace = Workspace.open(root)

    def one(_: int) -> bool:
        try:
            spend(workspace, "key", 1, 100, NOON)
        except QuotaError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(one, range(60)))


@pytest.mark.slow
def test_processes_at_once_spend_no_more_than_the_budget(workspace: Workspace) -> None:
    with FORKS.Pool(3) as pool:
        spent = pool.map(spend_some, [workspace.root] * 3)
    assert sum(spent) == 100


@pytest.fixture
def asked(youtube: YouTubeServer) -> Callable[[], list[str]]:
    """The answers that were asked for since the last question."""

    def asked() -> list[str]:
        urls = [request.full_path for request in youtube.requests]
        youtube.requests.clear()
        return urls

    return asked


def test_a_call_beyond_the_budget_is_not_sent_and_the_next_day_goes_on(
    workspace: Workspace,
    youtube: YouTubeServer,
    asked: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    youtube.add_channel([make_video(n) for n in range(121)])
    with pytest.raises(QuotaError, match="5 of 5 quota units are spent today"):
        listing(workspace, daily_quota=5)
    first = asked()
    assert len(first) == 5
    with pytest.raises(QuotaError):
        listing(workspace, daily_quota=5)
    assert asked() == []

    monkeypatch.setenv("YOUTUBE_API_KEY", youtube.key)
    [count] = (workspace.root / "quota").glob("*.json")
    count.write_text('{"day": "2020-01-01", "units": 5}')  # the next day
    found: Listing = listing(workspace, daily_quota=5)
    assert len(found.videos) == 121
    assert (
        found.work
        == "2 units of quota: 2 answers fetched, 0 unchanged, 4 kept from a list begun before"
    )
    assert len(asked()) == 2


def test_an_answer_that_has_not_changed_costs_too(
    workspace: Workspace, youtube: YouTubeServer
) -> None:
    youtube.add_channel([make_video(0)])
    listing(workspace, daily_quota=5)
    listing(workspace, daily_quota=5)
    assert youtube.not_modified == 2
    with pytest.raises(QuotaError, match="5 of 5"):
        listing(workspace, daily_quota=5)


def test_a_search_costs_a_hundred(workspace: Workspace, youtube: YouTubeServer) -> None:
    youtube.add_channel([make_video(0)])
    with pytest.raises(QuotaError, match=r"1 of 100 .* the next call costs 100"):
        listing(workspace, daily_quota=100, listing="search")
    assert len(youtube.requests) == 1
