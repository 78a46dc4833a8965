"""One request and its answer on a client connection: uvicorn's, with an answer that goes out in one write.

uvicorn writes the head and the body apart, two system calls each, and looks at every header with two regular
expressions: for a small prediction that is a third of what serving HTTP costs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.types import ASGIApp
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from marway_gateway.http.sync_request import Guard
from marway_gateway.transport.response_headers import Headers
from marway_http.channel import HeaderBlock, header_block

__all__ = ["Cycle"]

_STATUS_LINE: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_CORS: Final = frozenset(
    {b"access-control-allow-credentials", b"access-control-allow-origin", b"access-control-expose-headers"}
)
_NO_BODY: Final = frozenset({204, 304})
_JOINED_BYTES: Final = 64 * 1024
"""Bodies up to here are copied behind the head, which costs less than a second write."""


class _News:
    """What asyncio's `Event` is, for one that waits: made for every request, and waited for by few."""

    __slots__ = ("_come", "_waiter")

    def __init__(self) -> None:
        self._come = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._come = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._come = False

    async def wait(self) -> None:
        while not self._come:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Connection(Protocol):
    """Where a request came from: what uvicorn's protocols have, and `start`."""

    transport: asyncio.Transport
    flow: FlowControl
    logger: logging.Logger
    server_state: ServerState
    pipeline: deque[tuple[RequestResponseCycle, Any]]

    def on_response_complete(self) -> None:
        """Go on with the next request."""

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Call ``app`` for a request, in a task."""


class Cycle(RequestResponseCycle):
    """Holds the head of an answer until its first piece, as ASGI allows, and sends both at once.

    It is also the `Exchange` of a request that is begun without a task.
    """

    guard: Guard
    left: Callable[[], None] | None = None
    _head: bytes | None = None
    _has_cors = False

    def __init__(self, connection: Connection, scope: HTTPScope, *, keep_alive: bool, expects: bool) -> None:
        # What uvicorn's own sets, save what only its own `send` uses.
        self.connection = connection
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.message_event: Any = _News()
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0

    def add_cors(self, headers: Headers) -> None:
        """Give the answer these headers, which say who may read it, in the place of what a handler says of that."""
        self.default_headers = [*self.default_headers, *headers]
        self._has_cors = True

    @property
    def data(self) -> bytes:
        return bytes(self.body)

    @property
    def alone(self) -> bool:
        return not self.connection.pipeline

    @property
    def writable(self) -> bool:
        return not self.flow.write_paused

    def answer(self, status: int, lines: HeaderBlock, body: bytes) -> None:
        self.left = None
        if self.disconnected:
            return
        self.response_started = True
        if body and status in _NO_BODY:
            raise RuntimeError(f"an answer of status {status} has no body")
        if self._has_cors:
            lines = _without_cors(lines)
        text, number = _default_lines(tuple(self.default_headers))
        close = b"" if self.keep_alive else b"connection: close\r\n"
        line = _STATUS_LINE.get(status) or b"HTTP/1.1 %d " % status
        head = b"%b\r\n%b%b%b\r\n" % (line, text, lines.text, close)
        _check(head, 2 + number + lines.number + (not self.keep_alive))
        if len(body) <= _JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        self.response_complete = True
        self._end()

    def go_on(self, app: ASGIApp) -> None:
        self.left = None
        self.connection.start(self, partial(self.guard, app))

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with http.response.start, not with {kind}")
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], message.get("headers", ()))
        elif self.response_complete or kind != "http.response.body":
            raise RuntimeError(f"{kind} does not belong here: the answer is {self._how_far()}")
        else:
            self._send_body(message.get("body", b""), last=not message.get("more_body", False))

    def _head_of(self, status: int, headers: Any) -> bytes:
        lines = [_STATUS_LINE.get(status) or b"HTTP/1.1 %d " % status]
        closes = False
        if self._has_cors:
            headers = [each for each in headers if each[0].lower() not in _CORS]
        for name, value in (*self.default_headers, *headers):
            name = name.lower()
            if name in _FRAMING:
                if name == b"content-length" and self.chunked_encoding is None:
                    self.expected_content_length = int(value)
                    self.chunked_encoding = False
                elif name == b"transfer-encoding" and value.lower() == b"chunked":
                    self.expected_content_length = 0
                    self.chunked_encoding = True
                elif name == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
                    self.keep_alive = False
                    closes = True
            lines.append(name + b": " + value)
        if not self.keep_alive and not closes:
            lines.append(b"connection: close")
        if self.chunked_encoding is None and status not in _NO_BODY and self.scope["method"] != "HEAD":
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        _check(head, len(lines))
        return head

    def _send_body(self, body: bytes, *, last: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the answer's body is longer than its Content-Length")
        head, self._head = self._head, None
        if head is None:
            self.transport.write(body)
        elif len(body) <= _JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        if not last:
            return
        if self.expected_content_length:
            raise RuntimeError("the answer's body is shorter than its Content-Length")
        self.response_complete = True
        self._end()

    def _end(self) -> None:
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _how_far(self) -> str:
        return "complete" if self.response_complete else "begun"


_default_lines: Final = lru_cache(maxsize=64)(lambda headers: header_block(headers))
"""Of a second's date, and of a page's origin; few servers run in one process, and few pages ask."""


def _without_cors(lines: HeaderBlock) -> HeaderBlock:
    """Return headers without those of `_CORS`."""
    if b"access-control-" not in lines.text.lower():
        return lines
    kept = [each for each in lines.text.splitlines(keepends=True) if each.partition(b":")[0].lower() not in _CORS]
    return HeaderBlock(b"".join(kept), lines.number - (len(lines.text.splitlines()) - len(kept)))


def _check(head: bytes, lines: int) -> None:
    """Raise unless a head has so many lines: a line break in a header would begin another one, or a second answer."""
    if not head.count(b"\r") == head.count(b"\n") == lines or b"\0" in head:
        raise RuntimeError("a header of the answer has a control character in it")
