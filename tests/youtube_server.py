"""A stand-in for YouTube: the Data API v3 and the thumbnails, over real HTTP on loopback."""

import io
import json
import re
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

PAGE = 50
UNITS = {"channels": 1, "playlistItems": 1, "videos": 1, "search": 100}


def make_video(number: int, **changes: Any) -> dict[str, Any]:
    """A public long-form video; `changes` are duration, privacy, live, title, deleted, views."""
    return {
        "id": f"video-{number:05d}",
        "title": f"Title number {number}",
        "duration": "PT10M1S",
        "privacy": "public",
        "live": "none",
        "deleted": False,
        "day": number,
        **changes,
    }


def error_body(status: int, reason: str, detail: str = "", /, **fields: Any) -> str:
    """One of Google's; `detail` is the reason of an ErrorInfo, `fields` replace the error's."""
    error = {
        "code": status,
        "message": f"stand-in {reason}",
        "errors": [{"message": reason, "domain": "youtube", "reason": reason}],
        **fields,
    }
    if detail:
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": detail}
        help_ = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}
        error["details"] = [help_, info | {"domain": "googleapis.com"}]
    return json.dumps({"error": error})


def _same(name: str, other: str) -> bool:
    return unicodedata.normalize("NFC", name).lower() == unicodedata.normalize("NFC", other).lower()


def with_status(status: int, reason: str, **kinds: Any) -> Callable[[Request], Response]:
    """A fault: one of Google's error answers."""
    body = error_body(status, reason, **kinds)
    return lambda request: Response(body, status, content_type="application/json")


class YouTubeServer:
    """Channels, their videos and what was asked of them."""

    key = "AIza-stand-in-key-000000000000000000000"

    def __init__(self, http: HTTPServer) -> None:
        self.api_url = http.url_for("/youtube/v3")
        self.base = http.url_for("")
        self.channels: dict[str, dict[str, Any]] = {}
        self.requests: list[Request] = []
        self.units = 0
        self.not_modified = 0
        self.image_requests: Counter[str] = Counter()
        self.faults: deque[Response] = deque()
        self.faults_of: defaultdict[str, deque[Callable[[Request], Response] | None]]
        self.faults_of = defaultdict(deque)  # for the next calls of an endpoint; None: no fault
        self.repeat_page_token = False
        self.endless_page_tokens = False
        self.has_thumbnails = True
        self.ends_after: dict[str, int] = {"playlistItems": 20_000, "search": 500}
        self.counts_videos = True
        self.before_page: Callable[[], None] = lambda: None
        """Called before each page of a list is made."""
        self.spoil: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {}
        """(endpoint, video id) → what is made of its item."""
        http.expect_request("/youtube/v3/channels").respond_with_handler(self._channels)
        http.expect_request("/youtube/v3/playlistItems").respond_with_handler(self._playlist_items)
        http.expect_request("/youtube/v3/videos").respond_with_handler(self._videos)
        http.expect_request("/youtube/v3/search").respond_with_handler(self._search)
        self.feed_url = http.url_for("/feeds/videos.xml")
        self.feed_requests = 0
        self.has_feed = True
        http.expect_request("/feeds/videos.xml").respond_with_handler(self._feed)
        http.expect_request(re.compile("/vi/.*")).respond_with_handler(self._thumbnail)

    def add_channel(
        self,
        videos: list[dict[str, Any]],
        handle: str = "@tester",
        channel_id: str = "UC" + "x" * 22,
        username: str = "",
    ) -> str:
        """Open a channel; its id."""
        self.channels[channel_id] = {
            "id": channel_id,
            "handle": handle,
            "username": username,
            "videos": videos,
        }
        return channel_id

    def fail_next(
        self, status: int, reason: str = "", headers: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """Answer the next API calls with one of Google's error bodies."""
        self.answer_next(error_body(status, reason), status, headers, times)

    def answer_next(
        self, body: str, status: int = 200, headers: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """Answer the next API calls with this body."""
        for _ in range(times):
            self.faults.append(Response(body, status, headers, content_type="application/json"))

    def _answer(self, request: Request, endpoint: str, body: dict[str, Any]) -> Response:
        self.requests.append(request)
        self.units += UNITS[endpoint]
        if self.faults:
            return self.faults.popleft()
        if self.faults_of[endpoint] and (fault := self.faults_of[endpoint].popleft()):
            return fault(request)
        if "key" in request.args:
            return Response("the key belongs in a header", 500)
        if request.headers.get("X-Goog-Api-Key") != self.key:
            reason = {"reason": "badRequest", "message": "API key not valid."}
            error = {"code": 400, "message": "API key not valid.", "errors": [reason]}
            error["details"] = [{"reason": "API_KEY_INVALID"}]
            return Response(json.dumps({"error": error}), 400, content_type="application/json")
        text = json.dumps(body, sort_keys=True)
        response = Response(text, content_type="application/json")
        response.add_etag()
        if request.if_none_match.contains(response.get_etag()[0] or ""):
            self.not_modified += 1
        return response.make_conditional(request)

    def _channels(self, request: Request) -> Response:
        items = [
            {
                "kind": "youtube#channel",
                "etag": "e",
                "id": channel["id"],
                "snippet": {
                    "title": f"The channel {channel['handle']}",
                    "customUrl": channel["handle"].lower(),
                },
                "contentDetails": {"relatedPlaylists": {"uploads": "UU" + channel["id"][2:]}},
                "statistics": {"videoCount": str(len(self._public(channel["id"])))}
                if self.counts_videos
                else {},
            }
            for channel in self.channels.values()
            if self._is_asked_for(channel, request)
        ]
        body: dict[str, Any] = {
            "kind": "youtube#channelListResponse",
            "pageInfo": {"totalResults": len(items), "resultsPerPage": 5},
        }
        return self._answer(request, "channels", body | ({"items": items} if items else {}))

    def _is_asked_for(self, channel: dict[str, Any], request: Request) -> bool:
        """Capitals count in the id alone; a handle may come without its @."""
        by_id, handle, username = map(request.args.get, ("id", "forHandle", "forUsername"))
        return (
            channel["id"] == by_id
            or (handle is not None and _same(handle.lstrip("@"), channel["handle"].lstrip("@")))
            or (username is not None and _same(username, channel["username"]))
        )

    def _public(self, channel_id: str) -> list[dict[str, Any]]:
        videos = self._newest_first(channel_id)
        return [v for v in videos if v["privacy"] == "public" and not v["deleted"]]

    def _spoilt(self, endpoint: str, video: dict[str, Any], item: dict[str, Any]) -> Any:
        return self.spoil.get((endpoint, video["id"]), lambda item: item)(item)

    def _page(self, request: Request, items: list[Any], endpoint: str, kind: str) -> dict[str, Any]:
        start = int(request.args.get("pageToken", "T0")[1:])
        size = int(request.args.get("maxResults", 5))
        page: dict[str, Any] = {
            "kind": kind,
            "items": items[start : start + size],
            "pageInfo": {"totalResults": len(items), "resultsPerPage": size},
        }
        if start + size < min(len(items), self.ends_after[endpoint]):
            page["nextPageToken"] = "T0" if self.repeat_page_token else f"T{start + size}"
        elif self.endless_page_tokens:
            page["nextPageToken"] = f"T{start + size}"
        return page

    def _newest_first(self, channel_id: str) -> list[dict[str, Any]]:
        return sorted(self.channels[channel_id]["videos"], key=lambda v: -v["day"])

    def _playlist_items(self, request: Request) -> Response:
        self.before_page()
        videos = self._newest_first("UC" + request.args["playlistId"][2:])
        items = [
            self._spoilt(
                "playlistItems",
                video,
                {
                    "kind": "youtube#playlistItem",
                    "etag": "e",
                    "id": f"item-{video['id']}",
                    "contentDetails": {"videoId": video["id"]},
                    "status": {
                        "privacyStatus": "privacyStatusUnspecified"
                        if video["deleted"]
                        else video["privacy"]
                    },
                },
            )
            for video in videos
        ]
        body = self._page(request, items, "playlistItems", "youtube#playlistItemListResponse")
        if not videos:  # YouTube has no list of uploads then
            fault = with_status(404, "playlistNotFound")
            self.faults_of["playlistItems"].appendleft(fault)
        return self._answer(request, "playlistItems", body)

    def _search(self, request: Request) -> Response:
        self.before_page()
        channel = request.args["channelId"]
        items: list[dict[str, Any]] = [
            self._spoilt(
                "search",
                video,
                {
                    "kind": "youtube#searchResult",
                    "etag": "e",
                    "id": {"kind": "youtube#video", "videoId": video["id"]},
                },
            )
            for video in self._public(channel)
        ]
        itself = {"kind": "youtube#channel", "channelId": channel}
        items.append({"kind": "youtube#searchResult", "etag": "e", "id": itself})
        body = self._page(request, items, "search", "youtube#searchListResponse")
        return self._answer(request, "search", body)

    def _feed(self, request: Request) -> Response:
        """The 15 newest videos of a channel, as Atom."""
        self.feed_requests += 1
        channel = self.channels.get(request.args["channel_id"])
        if channel is None or not self.has_feed:
            return Response("", 404)
        newest = sorted(channel["videos"], key=lambda video: -video["day"])[:15]
        entries = "".join(
            f"<entry><yt:videoId>{v['id']}</yt:videoId><title>{escape(v['title'])}</title></entry>"
            for v in newest
        )
        return Response(
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<feed xmlns:yt="http://www.youtube.com/xml/schemas/2015" '
            f'xmlns="http://www.w3.org/2005/Atom">{entries}</feed>',
            content_type="text/xml",
        )

    def _videos(self, request: Request) -> Response:
        known = {v["id"]: v for channel in self.channels.values() for v in channel["videos"]}
        shown = [known[i] for i in request.args["id"].split(",") if i in known]
        shown = [v for v in shown if not v["deleted"] and v["privacy"] != "private"]
        body = {
            "kind": "youtube#videoListResponse",
            "items": [
                self._spoilt("videos", video, self._video(video, request.args["part"]))
                for video in shown
            ],
            "pageInfo": {"totalResults": len(shown), "resultsPerPage": len(shown)},
        }
        return self._answer(request, "videos", body)

    def _video(self, video: dict[str, Any], parts: str) -> dict[str, Any]:
        """Its channel may hide how often it was watched: then there is no viewCount."""
        views = {"viewCount": str(video["views"])} if "views" in video else {}
        more = {"statistics": views} if "statistics" in parts.split(",") else {}
        return self._known(video) | more

    def _known(self, video: dict[str, Any]) -> dict[str, Any]:
        sizes = {"default": (120, 90), "high": (480, 360), "maxres": (1280, 720)}
        return {
            "kind": "youtube#video",
            "etag": "e",
            "id": video["id"],
            "snippet": {
                "title": video["title"],
                "publishedAt": f"20{20 + video['day'] // 336:02d}-"
                f"{1 + video['day'] // 28 % 12:02d}-{1 + video['day'] % 28:02d}T12:00:00Z",
                "liveBroadcastContent": video["live"],
                "thumbnails": {
                    name: {
                        "url": f"{self.base}/vi/{video['id']}/{name}.jpg",
                        "width": width,
                        "height": height,
                    }
                    for name, (width, height) in sizes.items()
                },
            },
            "contentDetails": {"duration": video["duration"]},
            "status": {"privacyStatus": video["privacy"]},
        }

    def _thumbnail(self, request: Request) -> Response:
        """A picture that is told by the video's number; `maxres` exists for even numbers only."""
        video_id, name = request.path.split("/")[2:]
        self.image_requests[request.path] += 1
        number = int(video_id.split("-")[1])
        if not self.has_thumbnails or (name == "maxres.jpg" and number % 2):
            return Response("", 404)
        colours = np.random.default_rng(number).integers(40, 255, (9, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((480, 270), Image.Resampling.NEAREST)
        if name == "high.jpg":
            padded = Image.new("RGB", (480, 360))
            padded.paste(picture, (0, 45))
            picture = padded
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        return Response(file.getvalue(), content_type="image/jpeg")
