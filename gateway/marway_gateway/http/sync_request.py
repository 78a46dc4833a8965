"""A request that came whole, shown to an app before a task is made for it.

An app that can answer such a request without waiting for anything but a pod begins it (`FastApp.begin`) and sends the
answer from a callback (`Exchange.answer`): a task and its coroutines cost a small prediction as much as all else that
the gateway does. Whatever turns out otherwise goes on in a task, as ASGI has it (`Exchange.go_on`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from marway_http.channel import HeaderBlock

__all__ = ["Exchange", "FastApp", "Guard"]

Guard = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


class Exchange(Protocol):
    """One request that came whole, and its answer.

    Attributes:
        scope: ASGI's.
        guard: Calls an app within what is around every request; the outermost layer sets it in passing.
        left: Called when the client leaves or the server stops, once; who begins the request sets it.
    """

    scope: Scope
    guard: Guard
    left: Callable[[], None] | None

    @property
    def data(self) -> bytes:
        """The request's body."""

    @property
    def alone(self) -> bool:
        """Whether no other request of its client waits behind it."""

    @property
    def writable(self) -> bool:
        """Whether an answer can be sent without waiting for the client."""

    def answer(self, status: int, lines: HeaderBlock, body: bytes) -> None:
        """Send the whole answer and end the exchange.

        Args:
            status: HTTP status.
            lines: All headers but `date` and `connection`.
            body: As long as the headers say.

        Raises:
            RuntimeError: A header cannot be sent.
        """

    def go_on(self, app: ASGIApp) -> None:
        """Have a task call ``app``, within `guard`, for all that is left to do."""


class FastApp(Protocol):
    """An ASGI app that may begin requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

    def begin(self, exchange: Exchange) -> bool:
        """Begin a request, and return True; False leaves it to the call, as if it were unseen."""
