"""A channel's public feed: its newest videos without a key and without quota."""

import os
import time
from xml.etree import ElementTree

import requests
import urllib3

from thumbtune.channel.downloads import TooLargeError, TooSlowError, read_body
from thumbtune.errors import UserError

TIMEOUT = (10, 30)  # seconds to connect and between two bytes
TOTAL = 60  # seconds for a whole feed
LONGEST = 2_000_000  # bytes; a feed of 15 videos has some 40,000
VIDEO_ID = "{http://www.youtube.com/xml/schemas/2015}videoId"


class FeedError(UserError):
    """The feed cannot be read; the API can be asked instead."""


class _NoDocumentType(ElementTree.TreeBuilder):
    """Refuses what could hold entities that grow without end; no feed has a document type."""

    def doctype(self, *_: object) -> None:
        raise FeedError("it has a document type, which no feed has")


def feed_url() -> str:
    """Address of the feeds; THUMBTUNE_YOUTUBE_FEED_URL sets another one."""
    standard = "https://www.youtube.com/feeds/videos.xml"
    return os.environ.get("THUMBTUNE_YOUTUBE_FEED_URL", standard)


def newest_videos(channel_id: str) -> list[str]:
    """Ids of the some 15 newest videos of a channel, shorts and live streams included.

    Args:
        channel_id: UC and 22 characters.

    Raises:
        FeedError: no answer, no such feed, or no feed in it.
    """
    try:
        with requests.get(
            feed_url(), params={"channel_id": channel_id}, timeout=TIMEOUT, stream=True
        ) as answer:
            if answer.status_code != 200:
                raise FeedError(f"HTTP {answer.status_code}")
            content = read_body(answer, LONGEST, time.monotonic() + TOTAL)
        parser = ElementTree.XMLParser(target=_NoDocumentType())  # noqa: S314 (so no entities)
        feed = ElementTree.fromstring(content, parser)  # noqa: S314
    except TooLargeError:
        raise FeedError(f"larger than {LONGEST:,} bytes") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, TooSlowError) as error:
        raise FeedError(type(error).__name__) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # or an unknown encoding
        raise FeedError(f"no XML: {error}") from None
    return [element.text for element in feed.iter(VIDEO_ID) if element.text]
