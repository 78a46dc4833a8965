"""A request's body on its way through: whole in memory when it is small, else a stream that can be sent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from marway.errors import BodyTooLarge, InvalidRequest

__all__ = ["ClientGone", "Read", "RequestBody"]

Read = Callable[[], Awaitable[bytes]]
"""Gives the next piece of a body, and b"" at its end."""

_PIECE_BYTES = 256 * 1024


async def _ended() -> bytes:
    return b""


class ClientGone(Exception):
    """The client closed its connection, so nobody waits for the answer."""


class RequestBody:
    """One request's body, checked against the limits.

    Args:
        read: Where it comes from.
        content_length: Its size in bytes where the client said it.
        buffered_bytes: The largest body that is held in memory.
        max_bytes: The largest body that is accepted.

    Attributes:
        size: Bytes read so far.
    """

    def __init__(self, read: Read, *, content_length: int | None, buffered_bytes: int, max_bytes: int) -> None:
        self.size = 0
        self._ended = False
        self._awaited: asyncio.Event | None = None
        self._read = read
        self._content_length = content_length
        self._buffered_bytes = buffered_bytes
        self._max_bytes = max_bytes
        self._head: list[bytes] = []
        self._whole: bytes | None = None
        self._sent = False

    @classmethod
    def of(cls, data: bytes, *, max_bytes: int) -> RequestBody:
        """Return a body that is in memory already, whatever its size."""
        pieces = iter((data, b""))

        async def read() -> bytes:
            return next(pieces)

        return cls(read, content_length=len(data), buffered_bytes=max_bytes, max_bytes=max_bytes)

    @classmethod
    def opened(cls, data: bytes, *, max_bytes: int) -> RequestBody:
        """Return a body as `open` leaves it that was read whole and may be used: it is not empty, nor over a limit."""
        body = cls(_ended, content_length=len(data), buffered_bytes=max_bytes, max_bytes=max_bytes)
        body._whole = data
        body.size = len(data)
        body._ended = True
        return body

    @property
    def content_length(self) -> int | None:
        """The size in bytes, or None for a stream of unknown length."""
        return self._content_length if self._whole is None else len(self._whole)

    @property
    def whole(self) -> bytes | None:
        """All of it, or None when it streams."""
        return self._whole

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent (again): it is in memory, or no byte of it was sent yet."""
        return self._whole is not None or not self._sent

    async def open(self) -> None:
        """Read a small body whole; of a large one, only as much as it takes to know that it is.

        Raises:
            BodyTooLarge: It is over the limit, as far as can be told yet.
            InvalidRequest: It is empty.
            ClientGone: The client went away while sending it.
        """
        announced = self._content_length
        if announced is not None:
            if announced > self._max_bytes:
                raise self._too_large()
            if announced > self._buffered_bytes:
                return
        while self.size <= self._buffered_bytes:
            piece = await self._next()
            if not piece:
                self._whole = self._head[0] if len(self._head) == 1 else b"".join(self._head)
                self._head = []
                if not self._whole:
                    raise InvalidRequest(
                        "the request has no body: send the model's input as the request body, for example with "
                        "curl --data-binary @FILE"
                    )
                return
            self._head.append(piece)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces; a body in memory can be had again."""
        if self._whole is not None:
            for start in range(0, len(self._whole), _PIECE_BYTES):
                yield self._whole[start : start + _PIECE_BYTES]
            return
        self._sent = True
        head, self._head = self._head, []
        for piece in head:
            yield piece
        while piece := await self._next():
            yield piece

    async def received(self) -> None:
        """Wait until the body has been read to its end. For one waiter."""
        if not self._ended:
            self._awaited = asyncio.Event()
            await self._awaited.wait()

    async def _next(self) -> bytes:
        piece = await self._read()
        if not piece:
            self._ended = True
            if self._awaited is not None:
                self._awaited.set()
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise self._too_large()
        return piece

    def _too_large(self) -> BodyTooLarge:
        size = f"{self._content_length} bytes" if self._content_length is not None else "more"
        return BodyTooLarge(f"the body has {size}; this gateway accepts at most {self._max_bytes} bytes")
