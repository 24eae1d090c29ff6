"""View counts come with the list that is asked for anyway, and no list changes by them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.channel.test_youtube import endpoints
from tests.youtube_server import YouTubeServer, make_video
from thumbtune.channel.registry import Registry
from thumbtune.channel.videos import end_listing, list_videos
from thumbtune.channel.views import Views, views_of
from thumbtune.parameters import VideosParameters
from thumbtune.store.workspace import Workspace


def listed(workspace: Workspace) -> list[dict[str, Any]]:
    videos = list_videos(workspace, "youtube", "@tester", VideosParameters()).videos
    return [video.model_dump() for video in videos]


def kept(workspace: Workspace) -> Views:
    views = views_of(Registry(workspace, "youtube", "@tester"))
    assert views
    return views


def test_they_are_kept_with_the_day_and_cost_no_call_and_no_unit_more(
    youtube: YouTubeServer, workspace: Workspace
) -> None:
    youtube.add_channel([make_video(n, views=1000 * n) for n in range(60)])
    listed(workspace)
    assert endpoints(youtube) == ["channels", "playlistItems", "playlistItems", "videos", "videos"]
    assert youtube.units == 5
    views = kept(workspace)
    assert views.counts == {f"video-{n:05d}": 1000 * n for n in range(60)}
    assert abs((datetime.now(UTC) - views.read_at).total_seconds()) < 60


def test_a_list_is_the_same_list_when_only_views_have_changed(
    youtube: YouTubeServer, workspace: Workspace
) -> None:
    videos = [make_video(n, views=n) for n in range(10)]
    youtube.add_channel(videos)
    parameters = VideosParameters()
    before = list_videos(workspace, "youtube", "@tester", parameters)
    end_listing(workspace, "youtube", "@tester", parameters)
    for video in videos:
        video["views"] += 10**10
    after = list_videos(workspace, "youtube", "@tester", parameters)
    tables = [workspace.write_table("videos", each.videos) for each in (before, after)]
    assert tables[0] == tables[1]
    assert kept(workspace).counts["video-00003"] == 10**10 + 3


@pytest.mark.parametrize("count", [None, "many", "-5", {}])
def test_a_video_that_hides_its_views_or_tells_nonsense_is_listed_all_the_same(
    youtube: YouTubeServer, workspace: Workspace, count: object
) -> None:
    youtube.add_channel([make_video(1, views=7), make_video(2)])
    youtube.spoil["videos", "video-00002"] = lambda item: (
        item | {"statistics": {"viewCount": count}}
    )
    assert len(listed(workspace)) == 2
    assert kept(workspace).counts == {"video-00001": 7}
