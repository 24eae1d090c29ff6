"""What is used of the answers of the YouTube Data API, and how much of an answer must be right.

An item that is not as documented leaves out one video, not a channel. An answer of which nothing
can be told is another matter: it is asked for again.
"""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

VIDEO = "youtube#video"


def _or_none(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        return None


class _Part(BaseModel):
    """A part of an answer; what is null counts as missing."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if field is not None}


Text = Annotated[str | None, WrapValidator(_or_none)]
"""A text that nothing depends on."""
Count = Annotated[Annotated[int, Field(ge=0, le=10**9)] | None, WrapValidator(_or_none)]


class PageInfo(_Part):
    """How long a list is by YouTube's count; of a search that is an estimate, up to 1,000,000."""

    total: Count = Field(None, alias="totalResults")


class Answer(BaseModel):
    """An answer as a whole; its items are read one by one."""

    items: list[Any] = []
    next_page: str | None = Field(None, alias="nextPageToken")
    page_info: Annotated[PageInfo | None, WrapValidator(_or_none)] = Field(None, alias="pageInfo")

    @property
    def total(self) -> int | None:
        """How many items YouTube says there are."""
        return self.page_info.total if self.page_info else None


class _Playlists(_Part):
    uploads: str


class _ChannelDetails(_Part):
    related_playlists: _Playlists = Field(alias="relatedPlaylists")


class _ChannelSnippet(_Part):
    title: Text = None
    custom_url: Text = Field(None, alias="customUrl")


class _Statistics(_Part):
    videos: Count = Field(None, alias="videoCount")


class ChannelItem(_Part):
    """https://developers.google.com/youtube/v3/docs/channels"""

    id: str
    details: _ChannelDetails = Field(alias="contentDetails")
    snippet: Annotated[_ChannelSnippet | None, WrapValidator(_or_none)] = None
    statistics: Annotated[_Statistics | None, WrapValidator(_or_none)] = None


class _Status(_Part):
    privacy: str = Field("public", alias="privacyStatus")


class _PlaylistItemDetails(_Part):
    video_id: str = Field(alias="videoId", min_length=1)


class PlaylistItem(_Part):
    """https://developers.google.com/youtube/v3/docs/playlistItems"""

    details: _PlaylistItemDetails = Field(alias="contentDetails")
    status: Annotated[_Status | None, WrapValidator(_or_none)] = None


class _ResultId(_Part):
    kind: str = VIDEO
    video_id: str = Field("", alias="videoId")

    @model_validator(mode="after")
    def _names_a_video(self) -> "_ResultId":
        if self.kind == VIDEO and not self.video_id:
            raise ValueError("videoId is missing")
        return self


class SearchResult(_Part):
    """https://developers.google.com/youtube/v3/docs/search; also a channel or playlist."""

    id: _ResultId


class Thumbnail(_Part):
    """One size of a video's thumbnail."""

    url: str
    width: int = 0


class _Snippet(_Part):
    title: str
    live: str = Field("none", alias="liveBroadcastContent")
    thumbnails: dict[str, Thumbnail]
    published_at: str | None = Field(None, alias="publishedAt")

    @field_validator("thumbnails", mode="before")
    @classmethod
    def _without_odd_sizes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: size for name, size in value.items() if _is_thumbnail(size)} or value


def _is_thumbnail(value: Any) -> bool:
    try:
        Thumbnail.model_validate(value)
    except ValidationError:
        return False
    return True


class _VideoDetails(_Part):
    duration: str | None = None


class _VideoStatistics(_Part):
    views: Annotated[Annotated[int, Field(ge=0)] | None, WrapValidator(_or_none)] = Field(
        None, alias="viewCount"
    )


class VideoItem(_Part):
    """https://developers.google.com/youtube/v3/docs/videos"""

    id: str
    snippet: _Snippet
    details: _VideoDetails = Field(_VideoDetails(), alias="contentDetails")
    status: _Status = _Status()
    statistics: Annotated[_VideoStatistics | None, WrapValidator(_or_none)] = None

    @property
    def views(self) -> int | None:
        """How often it was watched; None if that is hidden."""
        return self.statistics.views if self.statistics else None


class _VideoName(_Part):
    id: str


NAMES: dict[str, type[_Part]] = {
    "channels": ChannelItem,
    "playlistItems": PlaylistItem,
    "search": SearchResult,
    "videos": _VideoName,
}
"""Endpoint → what an item must have for it to be known what it is about."""


def problem_of(endpoint: str, body: dict[str, Any], asked: str = "") -> str | None:
    """Why an answer tells nothing, such as "items: Input should be a valid list", or None.

    Args:
        asked: of `videos`, the ids that were asked for, with commas.
    """
    try:
        answer = Answer.model_validate(body)
    except ValidationError as error:
        return first_problem(error)
    problems = [_unknown(endpoint, item, asked) for item in answer.items]
    if not problems or None in problems:
        return None
    # The last page may have a single item, and that an odd one
    if len(problems) == 1 and answer.page_info and endpoint != "channels":
        return None
    return f"items.0.{problems[0]}"


def _unknown(endpoint: str, item: Any, asked: str) -> str | None:
    """Why it is not known what an item is about."""
    try:
        named = NAMES[endpoint].model_validate(item)
    except ValidationError as error:
        return first_problem(error)
    if asked and isinstance(named, _VideoName) and named.id not in asked.split(","):
        return f"id: {named.id!r:.30} was not asked for"
    return None


def first_problem(error: ValidationError) -> str:
    """The first field that is missing or of a wrong type."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def name_of(item: Any) -> str:
    """What names an odd item for people."""
    name = item.get("id") if isinstance(item, dict) else None
    return name[:40] if isinstance(name, str) and name else "without an id"
