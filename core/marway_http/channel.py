"""One request's way to its client and back, whatever kind of connection it came over: HTTP or frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

__all__ = [
    "CHANNEL",
    "LARGE_BODY_BYTES",
    "NO_BODY",
    "Channel",
    "ClientGone",
    "HeaderBlock",
    "Headers",
    "ServerStopping",
    "header_block",
]

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

CHANNEL: Final = "marway.channel"
"""Where an ASGI scope has the request's `Channel`."""
LARGE_BODY_BYTES: Final = 64 * 1024
"""Bodies from here on, in bytes: below it they come whole, or nearly, and the parser's copies are small."""
NO_BODY: Final = frozenset({204, 304})
"""Statuses whose answers have no body."""


class ClientGone(Exception):
    """The client closed its connection: nobody waits for the answer."""


class ServerStopping(Exception):
    """The server stops, and the time that its requests had is over."""


class HeaderBlock(NamedTuple):
    """Headers as they go out.

    Attributes:
        text: A line each, with its end.
        number: How many lines they are meant to be: with more, a header has a line break in it.
        shared: Bytes of ``text``, from its beginning, that many answers have alike.
    """

    text: bytes
    number: int
    shared: int = 0


def header_block(headers: Headers) -> HeaderBlock:
    """Return headers as they go out."""
    return HeaderBlock(b"".join([b"%b: %b\r\n" % each for each in headers]), len(headers))


class Channel(Protocol):
    """One request's way to its client and back.

    Attributes:
        received: Whether the whole body came.
        started: Whether an answer has begun, so that no other can be given.
        reason: Why the request was interrupted, or None: `ClientGone`, `ServerStopping`, or what its handler said.
    """

    received: bool
    started: bool
    reason: Exception | None

    @property
    def body(self) -> bytes | None:
        """The whole body, where it came before its request was begun."""

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Have ``gone`` called when the client leaves, once; None takes that back."""

    def interrupt(self, reason: Exception) -> None:
        """Have `asyncio.CancelledError` raised where the request's coroutine waits; only the first time counts."""

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        """Send a whole answer in one write, without waiting unless the client reads too slowly what was sent before.

        Args:
            status: From 200 to 599.
            headers: All but the connection's own and `date`; with `content-length`, unless the status has no body.
            body: As long as the headers say.
            close: Whether the client is to send no more this way.

        Raises:
            RuntimeError: A header cannot be sent; nothing was.
        """
