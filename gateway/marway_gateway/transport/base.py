"""What every connection to a sidecar has in common: how it is asked, what it answers, and how it fails.

`Connection` has two implementations, frames and HTTP, and one contract suite (`tests/gateway/transport/contract.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from marway_gateway.http.body import RequestBody
from marway_gateway.transport.response_headers import Headers, ResponseHeaders
from marway_http.channel import header_block

__all__ = [
    "NO_BODY",
    "AttemptFailed",
    "BodyStream",
    "Connection",
    "Declined",
    "PodLost",
    "PodUnreachable",
    "Reply",
    "Source",
    "read_within",
]

NO_BODY: Final = frozenset({204, 304})
"""Statuses whose answers have no body, whatever length they say."""
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


class Connection(Protocol):
    """One connection to a sidecar.

    A request ends once: with its answer, with a failure, or when its caller is cancelled, whichever comes first; then
    the connection forgets it. Cancelling tells the sidecar that nobody waits.
    """

    @property
    def ready(self) -> bool:
        """Whether `request` may be called now."""

    async def request(self, head: bytes, body: RequestBody) -> Reply:
        """Send a request; return the reply as soon as its body is whole, or streams. Sends before it first waits.

        Args:
            head: The path, and headers with those that say the body's length: lines, each with its end.
            body: To send; it was opened.

        Raises:
            PodUnreachable: Nothing was sent: the connection had ended.
            PodLost: There is no reply; the request may have been running.
            Declined: The request has to be sent over HTTP.
            Exception: Whatever reading ``body`` raises.
        """

    def close(self) -> None:
        """Take no more requests, and end when those under way have ended."""


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


class Reply:
    """A sidecar's answer.

    Attributes:
        status: HTTP status.
        outcome: Who made it, one of `marway.wire.headers.Outcome`, or None when no sidecar did.
        header_block: The headers that may be passed on, as they go out.
        retry_after_s: The pod's own Retry-After.
        data: The body, or None when it streams.
        content_length: Its size in bytes, where the pod said it.
        stream: Where a body that streams comes from.
        on_release: Called when the reply is closed, once.
    """

    __slots__ = (
        "content_length",
        "data",
        "header_block",
        "on_release",
        "outcome",
        "retry_after_s",
        "status",
        "stream",
    )

    def __init__(
        self,
        status: int,
        headers: ResponseHeaders,
        data: bytes | None,
        content_length: int | None,
        stream: BodyStream | None = None,
    ) -> None:
        self.status = status
        self.outcome, self.retry_after_s, _, self.header_block = headers
        self.data = data
        self.content_length = content_length
        self.stream = stream
        self.on_release: Callable[[], None] | None = None

    @property
    def headers(self) -> Headers:
        """The headers that may be passed on, names in lower case."""
        lines = [line.partition(b": ") for line in self.header_block.text.split(b"\r\n")[:-1]]
        return [(name, value) for name, _, value in lines]

    def cached(self, headers: Headers) -> Reply:
        """Return a whole answer with these headers that holds no connection, to be given again."""
        parsed = ResponseHeaders(self.outcome, self.retry_after_s, None, header_block(headers))
        return Reply(self.status, parsed, self.data, self.content_length)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield a streaming body as it comes.

        Raises:
            PodLost: It ended early.
        """
        assert self.stream is not None
        async for part, _ in self.stream.parts():
            if part:
                yield part

    async def pieces(self, *, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield a streaming body in the pieces in which the handler sent it: one HTTP chunk of the sidecar's each.

        Args:
            max_bytes: The largest piece; it is held in memory.

        Raises:
            PodLost: It ended early, or a piece was larger.
        """
        assert self.stream is not None
        held = bytearray()
        async for part, whole in self.stream.parts():
            held += part
            if len(held) > max_bytes:
                raise PodLost(f"sent a piece of more than {max_bytes} bytes", reason="bad_answer")
            if whole and held:
                yield bytes(held)
                held.clear()

    def close(self) -> None:
        """Let go of the connection: free again when the answer was read to its end, else told that nobody waits."""
        if self.stream is not None:
            self.stream.close()
        released, self.on_release = self.on_release, None
        if released is not None:
            released()


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
