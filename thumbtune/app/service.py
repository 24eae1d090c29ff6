"""`thumbtune serve`: match and search over HTTP, with the JSON of the command line.

One question is computed at a time, since each takes all cores; of those that wait there is a limit,
beyond which a client is told to come again: memory stays flat, and nobody waits for minutes.
"""

import asyncio
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from thumbtune.app.address import check_address
from thumbtune.app.in_use import MAX_TITLES, Champion, check_titles
from thumbtune.channel.registry import Registry
from thumbtune.data.thumbnails import MAX_BYTES
from thumbtune.errors import UserError
from thumbtune.use.indexing import Hit, search_picture, search_words
from thumbtune.use.matching import Fit, NoModelError

T = TypeVar("T")

WAITING = 16
"""Questions that may wait; one takes some 0.1 s with ViT-B/32 on two cores."""
MOST_HITS = 200


class Model(BaseModel):
    """One of the models that answer."""

    name: str
    typical: tuple[float, float, float] | None
    """Lower quartile, median and upper quartile of the cosines of the channel's own pairs."""


class Ranked(Fit):
    """A title, and what the untouched model says of it, if that was asked."""

    untouched: Fit | None = None


class Matched(BaseModel):
    """As `thumbtune match --json`."""

    models: list[Model]
    titles: list[Ranked]
    """The best first."""


class Health(BaseModel):
    """The service is there."""

    version: str
    """Of thumbtune."""
    channel: str
    champion: int | None
    """Its version; None if there is none yet."""


class Turns:
    """Lets one question at a time be computed, and some wait."""

    def __init__(self, waiting: int) -> None:
        self.most = waiting + 1
        self.asked = 0
        self.turn = asyncio.Lock()

    async def take(self, work: Callable[[], T]) -> T:
        """Compute in a thread, when it is this question's turn.

        Raises:
            HTTPException: 503, too many are waiting.
        """
        if self.asked >= self.most:
            raise HTTPException(503, "Busy: ask again in a second.", {"Retry-After": "1"})
        self.asked += 1
        try:
            async with self.turn:
                return await run_in_threadpool(work)
        finally:
            self.asked -= 1


def make_service(registry: Registry, names: Sequence[str], waiting: int = WAITING) -> FastAPI:
    """The application; its OpenAPI description is at /openapi.json.

    Args:
        names: by which it may be asked; * is any.
    """
    champion, turns = Champion(registry.workspace, registry), Turns(waiting)
    own = version("thumbtune")
    service = FastAPI(title="thumbtune", version=own, docs_url=None, redoc_url=None)
    service.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)

    @service.exception_handler(UserError)
    def in_words(request: Request, error: UserError) -> JSONResponse:
        status = 404 if isinstance(error, NoModelError) else 422
        return JSONResponse({"detail": str(error)}, status)

    @service.get("/health")
    def health() -> Health:
        """Whether it answers, and by which version."""
        chosen = registry.champion()
        number = chosen.number if chosen else None
        return Health(version=own, channel=registry.name, champion=number)

    @service.post("/match", openapi_extra=PICTURE, response_model_exclude_unset=True)
    async def match(
        request: Request,
        title: Annotated[list[str], Query(min_length=1, max_length=MAX_TITLES)],
        untouched: bool = False,
    ) -> Matched:
        """Rank titles by how well they fit the picture in the body, the best first."""
        data = await _body(request)
        return await turns.take(lambda: _match(champion, data, title, untouched))

    @service.get("/search")
    async def search(words: Annotated[str, Query(min_length=1)], top: Top = 12) -> list[Hit]:
        """Find the channel's thumbnails by words, the nearest first."""
        return await turns.take(
            lambda: list(search_words(champion.index(), champion.matcher(), words, top))
        )

    @service.post("/search", openapi_extra=PICTURE)
    async def search_like(request: Request, top: Top = 12) -> list[Hit]:
        """Find the channel's thumbnails that are most like the picture in the body."""
        data = await _body(request)
        return await turns.take(lambda: _search_like(champion, data, top))

    return service


Top = Annotated[int, Query(ge=1, le=MOST_HITS)]
PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""The body is a JPEG, PNG, WebP or GIF, as it is."""


async def _body(request: Request) -> bytes:
    """The body, of which no more is read than a picture may have."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BYTES:
            raise HTTPException(413, f"The picture is larger than {MAX_BYTES / 1e6:g} MB.")
    return bytes(data)


def _match(champion: Champion, data: bytes, titles: list[str], untouched: bool) -> Matched:
    titles = check_titles(list(dict.fromkeys(titles)))
    matchers = [champion.matcher(old) for old in ((False, True) if untouched else (False,))]
    picture = matchers[0].read_picture(data)
    first, *others = [matcher.rank_titles(picture, titles) for matcher in matchers]
    before = {fit.title: fit for fits in others for fit in fits}
    return Matched(
        models=[Model(name=matcher.name, typical=matcher.typical) for matcher in matchers],
        titles=[
            Ranked(**dict(fit), **({"untouched": before[fit.title]} if before else {}))
            for fit in first
        ],
    )


def _search_like(champion: Champion, data: bytes, top: int) -> list[Hit]:
    matcher = champion.matcher()
    return list(search_picture(champion.index(), matcher, matcher.read_picture(data), top))


def serve(registry: Registry, host: str, port: int, allowed_hosts: Sequence[str] = ()) -> None:
    """Serve until the process is told to stop.

    Raises:
        AddressError: the port is taken, or the host or a name is none.
    """
    _, names = check_address(host, port, "", allowed_hosts)
    where = f"http://{host}:{port}"
    print(f"{where} – {where}/openapi.json tells what it answers – stop with Ctrl-C", flush=True)
    uvicorn.run(make_service(registry, names), host=host, port=port, log_level="warning")
