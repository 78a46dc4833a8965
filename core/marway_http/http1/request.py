"""One request on an HTTP connection and its answer: ASGI's `receive` and `send`, and the `Channel` of its scope."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from marway_http.channel import CHANNEL, LARGE_BODY_BYTES, NO_BODY, HeaderBlock, Headers, ServerStopping, header_block
from marway_http.eager import EagerTask
from marway_http.http1.heads import STATUS_LINES, block_of, framed, without_cors
from marway_http.http1.reader import BodyPieces

if TYPE_CHECKING:
    from marway_http.http1.connection import HttpConnection

__all__ = ["Request"]

_log = logging.getLogger(__name__)


class Request:
    """One request: what came of it, and how far its answer is. It is the `Channel` of its scope.

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
        self._flow = connection.flow
        self._cors = cors
        self._told = False
        self._left: int | None = 0
        """Bytes that the answer's body is still to have; None when it is chunked."""
        self._head: bytes | None = None
        """Of an answer that ASGI has in two messages, which go out in one write."""
        self._changed: asyncio.Future[None] | None = None
        self._gone: Callable[[], None] | None = None
        self._run: EagerTask | None = None

    # -- the connection's ----------------------------------------------------------------------------------

    def start(self, app: Any) -> None:
        """Have ``app`` answer it."""
        self._connection.tasks.add(self)
        run = self._run = EagerTask(self._answer(app), self._ended)
        if self.reason is not None:
            run.interrupt(self.reason)

    def _ended(self) -> None:
        self._connection.tasks.discard(self)
        # Both hold this: what it leaves must not wait for Python's collector.
        self._run = None
        del self.scope[CHANNEL]

    def add(self, data: bytes) -> None:
        """Take in what came of its body."""
        if not self.complete:
            self.pieces.add(data)
            if self._changed is not None:
                self._change()

    def end(self) -> None:
        """Take in that its body has come whole."""
        self.received = True
        if self._changed is not None:
            self._change()

    def _change(self) -> None:
        """Have `receive` look again."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def lose(self) -> None:
        """Take in that nobody is there any more to be answered."""
        if not self.complete:
            self.disconnected = True
        self.pieces.drop()
        self._change()
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
        if self._flow.read_paused:
            self._flow.resume_reading()  # who does not read is not told
        if self.disconnected or self._connection.transport.is_closing():
            self._gone = None
            gone()

    def interrupt(self, reason: Exception) -> None:
        if self.reason is None:
            self.reason = reason
            if self._run is not None:
                self._run.interrupt(reason)

    def unread(self, gone: Callable[[], None]) -> AbstractContextManager[None]:
        """Read nothing while the context is open, and have ``gone`` called when the client leaves all the same."""
        return self._flow.unread(gone)

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if body and status in NO_BODY:
            raise RuntimeError(f"an answer of status {status} has no body")
        closes = close or not self.keep_alive
        head = self._head_of(status, headers, says_close=closes)
        self.started = True
        self.keep_alive = not closes
        self._write(head, b"" if self.scope["method"] == "HEAD" else body)
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
            self._flow.resume_reading()
            self._changed = connection.loop.create_future()
            try:
                await self._changed
            finally:
                self._changed = None
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Send a part of the answer; its head is held until the first piece, and both go out at once."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer begins with http.response.start, not with {kind}")
            self.started = True
            self.expects_continue = False
            status, bodiless = message["status"], self.scope["method"] == "HEAD"
            headers, self._left, closes = framed(status, message.get("headers", ()), bodiless=bodiless)
            self._head = self._head_of(status, headers, says_close=not self.keep_alive and not closes)
            self.keep_alive = self.keep_alive and not closes
        elif self.complete or kind != "http.response.body":
            raise RuntimeError(f"{kind} does not belong here: the answer is {'complete' if self.complete else 'begun'}")
        else:
            self._send_body(message.get("body", b""), last=not message.get("more_body", False))

    def _send_body(self, body: bytes, *, last: bool) -> None:
        if self.scope["method"] == "HEAD":
            self._left = 0
            body = b""
        elif self._left is None:
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

    def _head_of(self, status: int, headers: HeaderBlock, *, says_close: bool) -> bytes:
        """Return the head of an answer.

        Raises:
            RuntimeError: There is a line break in a header, which would begin another one, or a second answer.
        """
        if self._cors is not None:
            headers = without_cors(headers)
        text, number, _ = block_of(self._connection.default_headers, self._cors or ())
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
        end = b"connection: close\r\n\r\n" if says_close else b"\r\n"
        head = b"%b\r\n%b%b%b" % (line, text, headers.text, end)
        if not head.count(b"\r") == head.count(b"\n") == 2 + number + headers.number + says_close or b"\0" in head:
            raise RuntimeError("a header of the answer has a control character in it")
        return head

    def _write(self, head: bytes, body: bytes) -> None:
        if head and len(body) > LARGE_BODY_BYTES:  # copying a smaller one costs less than a second write
            self._connection.transport.writelines((head, body))
        else:
            self._connection.transport.write(head + body if head else body)

    def _end(self) -> None:
        self.complete = True
        self._gone = None
        if self.pieces.held:
            self.pieces.drop()
        if self._changed is not None:
            self._change()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.answered()
