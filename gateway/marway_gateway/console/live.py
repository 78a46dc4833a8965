"""Live parts of pages, as server-sent events (WHATWG HTML §9.2): `#live` of a page is sent again when it changed.

`GET /console/live/{page}` makes the page at `/console/{page}` over and over, by its own route and with the stream's own
query and cookie, and sends what stands in its `<div id="live" …>`, so that no page is made in a second way. What is
written between `<time>` and `</time>` is no change: browsers count on by themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Scope

from marway.errors import MarwayError, NotFound, Overloaded
from marway_gateway.console.frame import HEADERS, console_router
from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.server_sent_events import EVENT_STREAM

__all__ = ["LiveParts", "live_router"]

_STREAMS_MAX: Final = 64
"""Streams of one process: each is somebody who looks."""
_LEAST_S: Final = 1.0
_MOST_S: Final = 30.0
_SHARE: Final = 0.05
"""Part of the time that making one page may take: one that reads much is made less often."""
_BEAT_S: Final = 10.0
"""Silence after which a comment is sent, so that whoever went away is noticed."""
_LASTS_S: Final = 60.0
"""How long a stream lasts; browsers open the next by themselves, with a token that is looked at again."""
_LOOK_S: Final = 0.25
"""How often a stream looks whether the gateway stops."""
_LIVE: Final = re.compile(r'<div id="live" data-live[^>]*>.*(?=</main>)', re.DOTALL)
"""What stands after the part goes with it; browsers take out what is in `#live`."""
_TIMES: Final = re.compile(r"(<time [^>]*>)[^<]*")


@dataclass(frozen=True, slots=True)
class LivePart:
    """What a page's live part was when it was made last.

    Attributes:
        text: The part, or None where the page is no more, or has none.
        digest: Differs where a reader would see a difference.
        took_s: How long it took to make the page, in seconds.
        at: When it was made, on the parts' clock.
    """

    text: str | None
    digest: bytes
    took_s: float
    at: float

    @property
    def pause_s(self) -> float:
        """How long it is good for, in seconds."""
        return min(_MOST_S, max(_LEAST_S, self.took_s / _SHARE))


class LiveParts:
    """Makes live parts, one for all who look at the same page at the same time.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.streams = 0
        self._parts: dict[tuple[str, ...], LivePart] = {}
        self._making: dict[tuple[str, ...], asyncio.Task[LivePart]] = {}

    async def part(self, request: Request, page: str, *, anew: bool = False) -> LivePart:
        """Return what a page's live part is now.

        Args:
            request: Of the stream: whose cookie and query count.
            page: The page's path below `/console/`.
            anew: Not as it was made for others a moment ago: who opens a stream may have changed something just now.
        """
        # Whoever signed in sees their own name in the frame, so pages differ by token, if not in their live part.
        key = (page, request.url.query, request.headers.get("cookie", ""), request.headers.get("authorization", ""))
        known = self._parts.get(key)
        if known is not None and not anew and self.clock() - known.at < known.pause_s:
            return known
        task = self._making.get(key)
        if task is None or anew:
            task = self._making[key] = asyncio.create_task(self._made(request, page), name=f"live:{page}")
            task.add_done_callback(lambda done: self._making.pop(key) if self._making.get(key) is done else None)
        part = await asyncio.shield(task)
        self._parts = {each: old for each, old in self._parts.items() if self.clock() - old.at < _MOST_S}
        self._parts[key] = part
        return part

    async def _made(self, request: Request, page: str) -> LivePart:
        began = self.clock()
        status, body = await _page(request, page)
        text = body.decode()
        found = _LIVE.search(text) if status == 200 else None
        now = self.clock()
        if found is None:
            return LivePart(None, b"", now - began, now)
        digest = hashlib.sha256(_TIMES.sub(r"\1", found[0]).encode()).digest()
        return LivePart(found[0].strip(), digest, now - began, now)


def live_router(current: CurrentGateway) -> APIRouter:
    """Return the route."""
    router = console_router()
    parts = LiveParts()

    @router.get("/console/live/{page:path}")
    async def live(request: Request, page: str) -> Response:
        if page == "live" or page.startswith("live/"):
            raise NotFound("there is no such page")
        if parts.streams >= _STREAMS_MAX:
            raise Overloaded(f"{_STREAMS_MAX} pages are live already: load this one again", retry_after_s=10)
        parts.streams += 1  # from now on: many may come while their pages are made
        try:
            part = await parts.part(request, page, anew=True)
        finally:
            parts.streams -= 1
        if part.text is None:
            raise NotFound(f"the console has no page {page!r} that is live")
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        readiness = current().readiness
        events = _stream(parts, request, page, part, lambda: readiness.draining)
        return StreamingResponse(events, headers=headers, media_type=EVENT_STREAM)

    return router


async def _stream(
    parts: LiveParts, request: Request, page: str, part: LivePart, stopping: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yield events: `part` with the live part, `gone` when there is none any more, and comments in between."""
    parts.streams += 1
    try:
        began = sent_at = parts.clock()
        shown = part.digest
        yield f"retry: 1000\n\n{_event('part', part.text or '')}"
        while not stopping() and parts.clock() - began < _LASTS_S:
            await asyncio.sleep(_LOOK_S)
            if parts.clock() - part.at < part.pause_s:
                continue
            try:
                part = await parts.part(request, page)
            except MarwayError:  # the browser opens the next stream, and gets the error in place of it
                return
            if part.text is None:
                yield _event("gone", "")
                return
            if part.digest != shown:
                shown, sent_at = part.digest, parts.clock()
                yield _event("part", part.text)
            elif parts.clock() - sent_at >= _BEAT_S:
                sent_at = parts.clock()
                yield ":\n\n"
    finally:
        parts.streams -= 1


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


async def _page(request: Request, page: str) -> tuple[int, bytes]:
    """Return the status and the body that the page's own route answers with."""
    path = f"/console/{page}"
    scope: Scope = {**request.scope, "path": path, "raw_path": path.encode(), "path_params": {}}
    scope.pop("route", None)
    scope.pop("endpoint", None)
    status, body = 500, bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body.extend(message.get("body", b""))

    await request.app.router(scope, receive, send)
    return status, bytes(body)
