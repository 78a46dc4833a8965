"""A prediction's way to its client and back over HTTP, as ASGI and the connection have it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from marway_http.channel import ClientGone, HeaderBlock
from marway_http.eager import in_task
from marway_sidecar.api.connection import CONNECTION, BoundedConnection

__all__ = ["HttpChannel"]

_LINGER_S: Final = 1.0


class HttpChannel:
    """A request over HTTP: its way to its client and back, also in pieces.

    Args:
        scope, receive, send: As ASGI gives them, on a `BoundedConnection`.
    """

    __slots__ = ("_connection", "_gone", "_receive", "_scope", "_send", "body", "received", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection: BoundedConnection = scope[CONNECTION]
        self._scope = scope
        self._receive = receive
        self._send = send
        self._gone: Callable[[], None] | None = None
        self.body: bytes | None = self._connection.take_whole_body(scope)
        self.received = self.body is not None
        self.started = False

    async def receive(self) -> bytes:
        """Return the next piece of the body, b"" perhaps; `received` says whether it was the last.

        Raises:
            ClientGone: No more will come.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGone
        self.received = not message["more_body"]
        self.when_gone(self._gone)
        piece: bytes = message["body"]
        return piece

    async def send(self, message: Message) -> None:
        """Send a message to the client; returns when the connection takes more."""
        self.started = True
        await self._send(message)

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Have ``gone`` called when the client leaves, once; None takes that back.

        As long as the body comes, `receive` says so.
        """
        self._gone = gone
        self._connection.when_gone(gone if self.received else None)

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """Read nothing of the client while the context is open; it is told all the same who leaves."""
        assert self._gone is not None
        with self._connection.unread(self._gone):
            yield

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        """Send a whole answer.

        Args:
            status: From 200 to 599.
            headers: All but the connection's own and `date`.
            body: As long as they say.
            close: Whether the connection is closed after it. Of a body that did not come whole some is read then and
                dropped: closing while the client sends makes its kernel throw the answer away (RFC 9112 §9.6).
        """
        lingers = close and not self.received and not self._expects_continue
        if not lingers and self._connection.answer(self._scope, status, headers, body, close=close):
            self.started = True
            return
        await self.begin(status, headers, close=close)
        await self.send({"type": "http.response.body", "body": body, "more_body": lingers})
        if lingers:
            await in_task()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while (await self._receive()).get("more_body", False):
                        pass
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def begin(self, status: int, headers: HeaderBlock, *, close: bool) -> None:
        """Send the beginning of an answer whose body follows."""
        raw = [line.split(b": ", 1) for line in headers.text.split(b"\r\n")[:-1]]
        if close:
            raw.append([b"connection", b"close"])
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    @property
    def _expects_continue(self) -> bool:
        """Whether the client waits to be asked for its body, and so sends none after an answer."""
        return any(name == b"expect" for name, _ in self._scope["headers"])
