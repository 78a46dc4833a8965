"""A request's body on its way through: whole in memory when it is small, else a stream that can be sent once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.types import Receive

from marway.errors import BodyTooLarge, InvalidRequest
from marway_http.channel import ClientGone

__all__ = ["Read", "RequestBody", "body_reader"]

Read = Callable[[], Awaitable[bytes]]
"""Gives the next piece of a body, and b"" at its end."""

_PIECE_BYTES = 256 * 1024


async def _nothing() -> bytes:
    return b""


class RequestBody:
    """One request's body, checked against the limits.

    Args:
        read: Where it comes from.
        content_length: Its size in bytes where the client said it.
        buffered_bytes: The largest body that is held in memory.
        max_bytes: The largest body that is accepted.
        may_be_empty: Whether a body without a byte is accepted.

    Attributes:
        ended: Whether it was read to its end.
        size: Bytes read so far.
        waits_for_client: Whether more of it was asked for and has not come.
    """

    size = 0
    ended = False
    waits_for_client = False
    _came_at = 0.0
    _at_end: tuple[Callable[[], None], ...] = ()
    _whole: bytes | None = None
    _sent = False

    def __init__(
        self,
        read: Read,
        *,
        content_length: int | None,
        buffered_bytes: int,
        max_bytes: int,
        may_be_empty: bool = False,
    ) -> None:
        self._read = read
        self._content_length = content_length
        self._buffered_bytes = buffered_bytes
        self._max_bytes = max_bytes
        self._may_be_empty = may_be_empty
        self._head: list[bytes] = []

    @classmethod
    def opened(cls, data: bytes, *, max_bytes: int) -> RequestBody:
        """Return a body as `open` leaves it that is in memory and may be used: it is within the limits."""
        body = cls(_nothing, content_length=None, buffered_bytes=max_bytes, max_bytes=max_bytes)
        body._whole = data
        body.size = len(data)
        body.ended = True
        return body

    @classmethod
    def of(cls, data: bytes, *, max_bytes: int) -> RequestBody:
        """Return a body that is in memory already, whatever its size: `open` looks at that."""
        body = cls.opened(data, max_bytes=max_bytes)
        body.ended = False
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
        announced = self.content_length
        if announced is not None and announced > self._max_bytes:
            raise self._too_large()
        if self._whole is None:
            if announced is not None and announced > self._buffered_bytes:
                return
            while piece := await self._next():
                self._head.append(piece)
                if self.size > self._buffered_bytes:
                    return
            self._whole = self._head[0] if len(self._head) == 1 else b"".join(self._head)
            self._head = []
        self.ended = True
        if not self._whole and not self._may_be_empty:
            raise InvalidRequest(
                "the request has no body: send the model's input as the request body, for example with "
                "curl --data-binary @FILE"
            )

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

    def at_end(self, told: Callable[[], None]) -> None:
        """Have ``told`` called when it was read to its end."""
        self._at_end = (*self._at_end, told)

    def others_waited_s(self, since: float) -> float:
        """Return how long nobody has waited for the client, in seconds: 0 while somebody does.

        Args:
            since: From when on that counts, by `time.perf_counter`.
        """
        return 0.0 if self.waits_for_client else time.perf_counter() - max(since, self._came_at)

    async def _next(self) -> bytes:
        self.waits_for_client = True
        piece = await self._read()
        self.waits_for_client = False
        self._came_at = time.perf_counter()
        if not piece:
            self.ended = True
            for told in self._at_end:
                told()
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise self._too_large()
        return piece

    def _too_large(self) -> BodyTooLarge:
        size = f"{self.content_length} bytes" if self.content_length is not None else "more"
        return BodyTooLarge(f"the body has {size}; this gateway accepts at most {self._max_bytes} bytes")


def body_reader(receive: Receive) -> Read:
    """Return what gives a request's body piece by piece; it raises `ClientGone` when the client goes away."""
    ended = False

    async def read() -> bytes:
        nonlocal ended
        while not ended:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            if piece:
                return piece
        return b""

    return read
