"""A sidecar's answer as it comes off a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from marway_gateway.transport.response_headers import Said

__all__ = ["Response", "Sent", "Source", "Waiter", "answer_to"]

_HELD_BYTES_MAX: Final = 256 * 1024
"""From here on the connection is not read until the reader has caught up, so that a slow one costs no memory."""


class Source(Protocol):
    """Where a response comes from."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def abandon(self) -> None:
        """Nobody wants the rest."""


class Waiter(Protocol):
    """Who is given a response, or why there is none: a future, or what acts at once."""

    def done(self) -> bool:
        """Whether it wants nothing any more."""

    def set_result(self, response: Response, /) -> None:
        """Take the response."""

    def set_exception(self, error: Exception, /) -> None:
        """Take why there is none."""


class Sent(Protocol):
    """A request that was sent."""

    async def answer(self, waiter: asyncio.Future[Response], /) -> Response:
        """Return the response, as ``waiter`` has it; who is cancelled wants none."""


class Response:
    """A status, headers and a body, whole or as a stream that is read once.

    Attributes:
        status: HTTP status.
        said: What its headers say.
        content_length: Size of the body in bytes where it was said, else None.
        data: The body, or None when it streams: then `parts` gives it.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_held",
        "_news",
        "_parts",
        "_source",
        "content_length",
        "data",
        "said",
        "status",
    )

    def __init__(self, status: int, said: Said, content_length: int | None, source: Source | None) -> None:
        self.status = status
        self.said = said
        self.content_length = content_length
        self.data: bytes | None = None
        self._source = source
        self._parts: deque[tuple[bytes, bool]] = deque()
        self._held = 0
        self._news: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._ended = False

    async def parts(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield a streaming body as it comes, each part with whether an HTTP chunk ends with it.

        Raises:
            PodLost: It ended early.
        """
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._held -= len(part[0])
                if self._source is not None and self._held < _HELD_BYTES_MAX:
                    self._source.resume()
                yield part
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def close(self) -> None:
        """Let go of the connection; what was not read is thrown away."""
        source, self._source = self._source, None
        if source is not None and not self._ended:
            source.abandon()

    # -- told by the connection ----------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in a part of the body."""
        self._parts.append((data, False))
        self._held += len(data)
        if self._held >= _HELD_BYTES_MAX and self._source is not None:
            self._source.pause()
        self._tell()

    def end_chunk(self) -> None:
        """Take in that an HTTP chunk ended with the last part."""
        if self._parts and not self._parts[-1][1]:
            self._parts[-1] = (self._parts[-1][0], True)
        else:
            self._parts.append((b"", True))
        self._tell()

    def end(self, error: Exception | None = None) -> None:
        """Take in that the body ended, or broke off with an error."""
        self._ended = True
        self._error = error
        self._source = None
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)


async def answer_to(waiter: asyncio.Future[Response], give_up: Callable[[], None]) -> Response:
    """Return the response that ``waiter`` is given; who is cancelled wants none.

    Args:
        waiter: Of a request that was sent.
        give_up: Called on a cancel, unless the response came just before: that is let go of by itself, for another
            request may be on its connection already.

    Raises:
        PodLost: There is no response; the request may have been running.
    """
    try:
        return await waiter
    except asyncio.CancelledError:
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().close()
        else:
            give_up()
        raise
