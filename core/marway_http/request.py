"""One request on an HTTP connection and its answer: ASGI's `receive` and `send`, and the `Channel` of its scope."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from collections.abc import Callable, Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from marway_http.body import LARGE_BODY_BYTES, BodyPieces
from marway_http.channel import CHANNEL, HeaderBlock, Headers, ServerStopping, header_block
from marway_http.eager import EagerTask

if TYPE_CHECKING:
    from marway_http.connection import HttpConnection

__all__ = ["Request"]

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
_LEFT: Final = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # the last is Linux's
_LOOK_S: Final = 0.1
"""How often a connection that is not read is looked at for its client's leaving."""
_log = logging.getLogger(__name__)


class Request:
    """One request: what came of it, and how far its answer is.

    It is the `Channel` that its scope has under `CHANNEL`.

    Args:
        connection: What it came over.
        scope: ASGI's.
        keep_alive: Whether another request may follow on the connection.
        expects: Whether the client waits to be told to send the body.
        cors: Headers that say who may read the answer, in the place of what a handler says of that; None leaves those.

    Attributes:
        complete: Whether the whole answer was sent.
        disconnected: Whether nobody is there any more to be answered.
        wanted: Whether the application asked for the body.
    """

    def __init__(
        self,
        connection: HttpConnection,
        scope: dict[str, Any],
        *,
        keep_alive: bool,
        expects: bool,
        cors: Headers | None,
    ) -> None:
        self.scope = scope
        scope[CHANNEL] = self
        self.keep_alive = keep_alive
        self.expects_continue = expects
        self.pieces = BodyPieces()
        self.received = self.started = self.complete = self.disconnected = self.wanted = False
        self.reason: Exception | None = None
        self._connection = connection
        self._cors = cors
        self._told = False
        self._chunked: bool | None = None
        self._left = 0
        """Bytes that the answer's body is still to have."""
        self._head: bytes | None = None
        """Of an answer that ASGI has in two messages, which go out in one write."""
        self._changed: asyncio.Future[None] | None = None
        self._gone: Callable[[], None] | None = None
        self._run: EagerTask | None = None

    # -- the connection's ----------------------------------------------------------------------------------

    def start(self, app: Any) -> None:
        """Have ``app`` answer it."""
        tasks: set[Any] = self._connection.tasks
        tasks.add(self)
        self._run = EagerTask(self._answer(app), lambda: tasks.discard(self))
        if self.reason is not None:
            self._run.interrupt(self.reason)

    def add(self, data: bytes) -> None:
        """Take in what came of its body."""
        if not self.complete:
            self.pieces.add(data)
            self.changed()

    def end(self) -> None:
        """Take in that its body has come whole."""
        self.received = True
        self.changed()

    def changed(self) -> None:
        """Have `receive` look again."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def lose(self) -> None:
        """Take in that nobody is there any more to be answered."""
        if not self.complete:
            self.disconnected = True
        self.pieces.drop()
        self.changed()
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def cancel(self, msg: object = None) -> None:
        """End what answers it; uvicorn calls this when the time to shut down is over."""
        self.interrupt(ServerStopping())

    async def _answer(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            if self.reason is None:
                raise
            self._connection.transport.close()
        except Exception:
            _log.exception("a request's application failed")
            if self.started:
                self._connection.transport.close()
        else:
            if self.complete or self.disconnected:
                return
            if self.started:
                _log.error("a request's application ended before its answer")
                self._connection.transport.close()
        if not (self.started or self.disconnected):
            self.keep_alive = False
            await self.answer(500, header_block([(b"content-length", b"0")]), b"")

    # -- the channel ---------------------------------------------------------------------------------------

    @property
    def body(self) -> bytes | None:
        return self.pieces.whole() if self.received and self.pieces.held <= LARGE_BODY_BYTES else None

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone
        if gone is None:
            return
        self._connection.resume_reading()  # who does not read is not told
        if self.disconnected or self._connection.transport.is_closing():
            self._gone = None
            gone()

    def interrupt(self, reason: Exception) -> None:
        if self.reason is None:
            self.reason = reason
            if self._run is not None:
                self._run.interrupt(reason)

    @contextlib.contextmanager
    def unread(self, gone: Callable[[], None]) -> Iterator[None]:
        """Read nothing while the context is open, and have ``gone`` called when the client leaves all the same.

        What it sent stays in the kernel, which then makes the client wait. A connection that is not read tells
        nobody of its end, so it is looked at now and then.
        """
        connection = self._connection
        poll = select.poll()
        poll.register(connection.transport.get_extra_info("socket").fileno(), _LEFT)
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if connection.transport.is_closing() or poll.poll(0):
                gone()
            else:
                timer = connection.loop.call_later(_LOOK_S, look)

        connection.pause_reading()
        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            connection.resume_reading()

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        connection = self._connection
        if connection.write_paused and not self.disconnected:
            await connection.drain()
        if self.disconnected:
            return
        if body and (status in _NO_BODY or self.scope["method"] == "HEAD"):
            if status in _NO_BODY:
                raise RuntimeError(f"an answer of status {status} has no body")
            body = b""
        default = connection.default_headers
        if self._cors is not None:
            headers = _without_cors(headers)
            default = (*default, *self._cors)
        text, number = _block(default)
        closes = close or not self.keep_alive
        head = b"%b\r\n%b%b%b\r\n" % (
            _STATUS_LINE.get(status) or b"HTTP/1.1 %d " % status,
            text,
            headers.text,
            b"connection: close\r\n" if closes else b"",
        )
        _check(head, 2 + number + headers.number + closes)
        self.started = True
        self.keep_alive = not closes
        self._write(head, body)
        self._end()

    # -- ASGI ----------------------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """Return the next piece of the body, or that the client has left."""
        connection, pieces = self._connection, self.pieces
        if self.expects_continue and not connection.transport.is_closing():
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
        self.wanted = True
        while not (self.disconnected or self.complete):
            if pieces.held >= connection.limits.piece_bytes or (self.received and not self._told):
                piece = pieces.take()
                self._told = self.received and not pieces.held
                return {"type": "http.request", "body": piece, "more_body": not self._told}
            connection.resume_reading()
            self._changed = connection.loop.create_future()
            try:
                await self._changed
            finally:
                self._changed = None
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Send a part of the answer; its head is held until the first piece, and both go out at once."""
        connection = self._connection
        if connection.write_paused and not self.disconnected:
            await connection.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with http.response.start, not with {kind}")
            self.started = True
            self.expects_continue = False
            self._head = self._head_of(message["status"], message.get("headers", ()))
        elif self.complete or kind != "http.response.body":
            raise RuntimeError(f"{kind} does not belong here: the answer is {'complete' if self.complete else 'begun'}")
        else:
            self._send_body(message.get("body", b""), last=not message.get("more_body", False))

    def _head_of(self, status: int, headers: Any) -> bytes:
        lines = [_STATUS_LINE.get(status) or b"HTTP/1.1 %d " % status]
        closes = False
        own: Headers = self._connection.default_headers
        if self._cors is not None:
            headers = [each for each in headers if each[0].lower() not in _CORS]
            own = (*own, *self._cors)
        for name, value in (*own, *headers):
            name = name.lower()
            if name in _FRAMING:
                if name == b"content-length" and self._chunked is None:
                    self._left = int(value)
                    self._chunked = False
                elif name == b"transfer-encoding" and value.lower() == b"chunked":
                    self._left = 0
                    self._chunked = True
                elif name == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
                    self.keep_alive = False
                    closes = True
            lines.append(name + b": " + value)
        if not self.keep_alive and not closes:
            lines.append(b"connection: close")
        if self._chunked is None and status not in _NO_BODY and self.scope["method"] != "HEAD":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        _check(head, len(lines))
        return head

    def _send_body(self, body: bytes, *, last: bool) -> None:
        if self.scope["method"] == "HEAD":
            self._left = 0
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                body += b"0\r\n\r\n"
        else:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the answer's body is longer than its Content-Length")
        head, self._head = self._head or b"", None
        self._write(head, body)
        if last:
            if self._left:
                raise RuntimeError("the answer's body is shorter than its Content-Length")
            self._end()

    def _write(self, head: bytes, body: bytes) -> None:
        if head and len(body) > _JOINED_BYTES:
            self._connection.transport.writelines((head, body))
        else:
            self._connection.transport.write(head + body if head else body)

    def _end(self) -> None:
        self.complete = True
        self._gone = None
        self.pieces.drop()
        self.changed()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.answered()


@lru_cache(maxsize=64)
def _block(headers: Headers) -> HeaderBlock:
    """Return the headers of a second's date and of a page's origin: few servers run in one process, few pages ask."""
    return header_block(headers)


def _without_cors(headers: HeaderBlock) -> HeaderBlock:
    if b"access-control-" not in headers.text.lower():
        return headers
    lines = headers.text.splitlines(keepends=True)
    left = [each for each in lines if each.partition(b":")[0].lower() not in _CORS]
    return HeaderBlock(b"".join(left), headers.number - (len(lines) - len(left)))


def _check(head: bytes, lines: int) -> None:
    """Raise unless a head has so many lines: a line break in a header would begin another one, or a second answer."""
    if not head.count(b"\r") == head.count(b"\n") == lines or b"\0" in head:
        raise RuntimeError("a header of the answer has a control character in it")
