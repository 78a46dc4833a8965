"""How asking a sidecar fails, and bodies of its answers that are read as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

__all__ = ["AttemptFailed", "BodyStream", "Declined", "PodLost", "PodUnreachable", "Source", "read_within"]

_HELD_BYTES_MAX: Final = 256 * 1024
"""From here on a connection is not read until the reader has caught up, so that a slow one costs no memory."""


class AttemptFailed(Exception):
    """A pod gave no answer.

    Attributes:
        why: Words to put behind the pod's name: "refused the connection".
        reason: One word for metrics.
        counted: Whether it says something of the pod that no other failure has said: of the requests that ended with
            one connection, one counts.
    """

    def __init__(self, why: str, *, reason: str, counted: bool = True) -> None:
        super().__init__(why)
        self.why = why
        self.reason = reason
        self.counted = counted


class PodUnreachable(AttemptFailed):
    """No connection came about, so nothing of the request was sent."""


class PodLost(AttemptFailed):
    """The connection broke, or what came over it was no answer: the request may have been running."""


class Declined(Exception):
    """The sidecar did not begin on the request, and takes it over HTTP."""


class Source(Protocol):
    """Where a streaming body comes from."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def abandon(self) -> None:
        """Nobody wants the rest."""


class BodyStream:
    """A body that is read once, as it comes."""

    __slots__ = ("_ended", "_error", "_held", "_news", "_parts", "_source")

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._parts: deque[tuple[bytes, bool]] = deque()
        self._held = 0
        self._news: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._ended = False

    async def parts(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield it as it comes, each part with whether one of the sidecar's HTTP chunks ends with it.

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
        if source is not None:
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


async def read_within(pieces: AsyncIterator[bytes], limit: int, close: Callable[[], None]) -> bytes:
    """Read a body, but never more than ``limit`` bytes of it; the rest is thrown away with the connection."""
    read: list[bytes] = []
    size = 0
    async for piece in pieces:
        read.append(piece)
        size += len(piece)
        if size >= limit:
            close()
            break
    return b"".join(read)[:limit]
