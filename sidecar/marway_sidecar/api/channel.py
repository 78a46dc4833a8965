"""The way back from a request to its client, whatever kind of connection it came over."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from starlette.responses import Response

__all__ = ["Channel", "ClientGone", "Reply"]


class ClientGone(Exception):
    """The client closed its connection: nobody waits for the answer."""


class Reply(NamedTuple):
    """A whole answer.

    Attributes:
        status: From 200 to 599.
        head: Header lines as they go out, each with its end: checked by who made them.
        body: What follows; its length is in ``head``.
        known: Bytes of ``head``, from its beginning, that are the same for nearly all answers of a version.
    """

    status: int
    head: bytes
    body: bytes
    known: int = 0


class Channel(Protocol):
    """One request's way to its client.

    Attributes:
        received: Whether the whole body came.
        started: Whether the answer has begun, so that no other can be given.
    """

    received: bool
    started: bool

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Have ``gone`` called when the client leaves, once; None takes that back. The whole body must have come."""

    def answer_now(self, reply: Reply, *, close: bool) -> bool:
        """Send a whole answer if that can be done without waiting; return whether it was.

        Args:
            reply: The answer.
            close: Whether the client is to send no more this way.
        """

    async def answer(self, reply: Reply, *, close: bool) -> None:
        """Send a whole answer."""

    async def respond(self, response: Response, *, close: bool) -> None:
        """Send a whole answer that says nothing of the request's model."""
