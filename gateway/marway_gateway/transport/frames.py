"""One connection to a sidecar with many requests on it at a time (`marway_http.frames`)."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from marway_gateway.http.body import RequestBody
from marway_gateway.transport.base import BodyStream, Declined, PodLost, PodUnreachable
from marway_gateway.transport.reply import NO_BODY, Reply, parse_response_headers
from marway_http.eager import InlineFuture
from marway_http.frames import BadFrames, FrameReader, FrameWriter, Kind, frame_header

__all__ = ["FramesClientConnection"]

_IDLE_S: Final = 15.0
"""How long a connection without requests is kept at least; at most twice as long, less than any sidecar keeps it."""
_HEADERS_MAX: Final = 200
_WAITING_BYTES_MAX: Final = 1024 * 1024
"""Of requests that the kernel did not take yet; with more, the next ones take other connections."""


class FramesClientConnection(asyncio.Protocol):
    """Sends requests and gives their replies, as they come, to callers that go on at once (`InlineFuture`).

    Args:
        buffered_bytes: The largest body that is read before the reply is given.

    Attributes:
        ready: Whether a request may be sent now.
        over: Whether none may be sent any more.
    """

    def __init__(self, *, buffered_bytes: int) -> None:
        self.ready = False
        self.over = False
        self._buffered_bytes = buffered_bytes
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._writer: FrameWriter
        self._reader = FrameReader()
        self._requests: dict[int, _Request] = {}
        self._number = 0
        self._heard_at = 0.0
        self._idle: asyncio.TimerHandle | None = None

    async def request(self, head: bytes, body: RequestBody) -> Reply:
        """Do as `Connection.request` says, with a body of `frames.REQUEST_BYTES_MAX` at most, in memory."""
        if not self.ready:
            raise PodUnreachable("closed the connection before anything was sent", reason="closed")
        data = body.whole
        assert data is not None
        number = self._number = (self._number + 1) & 0xFFFF_FFFF
        future: InlineFuture[Reply] = InlineFuture(loop=self._loop)
        self._requests[number] = _Request(self, number, future, self._loop.time())
        self._write(frame_header(Kind.REQUEST, number, head=len(head), body=len(data)) + head + data)
        try:
            return await future
        except asyncio.CancelledError:
            self.cancel(number)
            raise
        finally:
            del future  # its failure's traceback holds this frame: together they would wait for the garbage collector

    def close(self) -> None:
        """Send no more requests, and close when all are answered."""
        self.over = True
        self.ready = False
        if not self._requests:
            self._close()

    # -- told by requests ----------------------------------------------------------------------------------

    def cancel(self, number: int) -> None:
        """Have nobody wait for an answer or its rest; does nothing for a request that has ended.

        A connection over which nothing came since the request was sent is closed: it may be a dead one.
        """
        request = self._requests.pop(number, None)
        if request is None or self._transport.is_closing():
            return
        self._write(frame_header(Kind.CANCEL, number))
        if self.over or self._heard_at < request.sent_at:
            self.close()

    def update_window(self, number: int, parts: int) -> None:
        """Have the sidecar send so many parts more of an answer."""
        if number in self._requests and not self._transport.is_closing():
            self._write(frame_header(Kind.WINDOW_UPDATE, number, status=parts))

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WAITING_BYTES_MAX)
        self._writer = FrameWriter(self._transport, self._loop)
        self._heard_at = self._loop.time()
        self.ready = True
        self._close_if_idle()

    def eof_received(self) -> None:
        self.close()  # it is lost as soon as this turn of the loop ends, in which others may send

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("closed the connection before it had answered", reason="connection_lost")

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = not self.over

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for kind, number, status, head, body in self._reader.feed(data):
                request = self._requests.get(number)
                if request is None:
                    continue  # nobody waits for it any more
                if kind == Kind.ANSWER and request.left < 0:
                    self._answered(number, request, status, head, body)
                elif kind == Kind.PART:
                    self._feed(number, request, body)
                elif kind == Kind.DECLINED and request.left < 0:
                    del self._requests[number]
                    request.fail(Declined())
                else:
                    raise BadFrames
        except (BadFrames, ValueError):
            self._fail("answered with something else than frames", reason="bad_answer")
            return
        if self.over and not self._requests:
            self._close()

    def _write(self, frame: bytes) -> None:
        self._writer.write(frame, under_way=len(self._requests))

    def _close(self) -> None:
        self._writer.flush()
        self._transport.close()

    def _fail(self, why: str, *, reason: str) -> None:
        self.over = True
        self.ready = False
        if self._idle is not None:
            self._idle.cancel()
        self._transport.abort()
        requests, self._requests = self._requests, {}
        counted = True
        for request in requests.values():
            if request.fail(PodLost(why, reason=reason, counted=counted)):
                counted = False

    def _answered(self, number: int, request: _Request, status: int, head: bytes, body: bytes) -> None:
        try:
            outcome, retry_after_s, block, length, run = parse_response_headers(head)
            if length is None:
                length = len(body)
            if status in NO_BODY:
                length = 0
            if block.number > _HEADERS_MAX or not 200 <= status <= 599 or length < len(body):
                raise ValueError
        except ValueError:  # in frames that are frames: it costs this request alone
            del self._requests[number]
            self._write(frame_header(Kind.CANCEL, number))  # what follows of it is not wanted
            request.fail(PodLost("answered with headers that are none", reason="bad_answer"))
            return
        if length == len(body):
            del self._requests[number]
            request.succeed(Reply(status, outcome, retry_after_s, block, body, length, run))
            return
        stream = BodyStream(request) if length > self._buffered_bytes else None
        request.reply = Reply(status, outcome, retry_after_s, block, None, length, run, stream)
        request.left = length
        self._feed(number, request, body)
        if stream is not None:
            request.succeed(request.reply)

    def _feed(self, number: int, request: _Request, part: bytes) -> None:
        if request.feed(part):
            del self._requests[number]
            request.end()

    def _close_if_idle(self) -> None:
        if self._requests or self._heard_at + _IDLE_S > self._loop.time():
            self._idle = self._loop.call_later(_IDLE_S, self._close_if_idle)
        else:
            self.close()


class _Request:
    """One request on a connection with others; the source of its answer, where that streams.

    Attributes:
        sent_at: When it was sent, by the loop's clock.
        reply: The answer, once its head has come, if its body goes on.
        left: Bytes of that body that are to come; less than none before its head has come.
    """

    __slots__ = ("_connection", "_future", "_number", "_parts", "_paused", "_window", "left", "reply", "sent_at")

    def __init__(
        self, connection: FramesClientConnection, number: int, future: InlineFuture[Reply], sent_at: float
    ) -> None:
        self.sent_at = sent_at
        self.reply: Reply | None = None
        self.left = -1
        self._connection = connection
        self._number = number
        self._future: InlineFuture[Reply] | None = future  # until it is told
        self._parts: list[bytes] = []
        self._paused = False
        self._window = 0

    def succeed(self, reply: Reply) -> None:
        """Give the reply to its caller, who goes on within this call."""
        future, self._future = self._future, None  # it may hold this, and would keep both alive
        if future is not None and not future.done():
            future.set_result(reply)

    def fail(self, error: Exception) -> bool:
        """Give a failure to the caller, or end what it reads; return whether it was the caller."""
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(error)
            return True
        if self.reply is not None and self.reply.stream is not None:
            self.reply.stream.end(error)
        return False

    def feed(self, part: bytes) -> bool:
        """Take in a part of a body that goes on; return whether it was the last.

        Raises:
            BadFrames: It is longer than was said, or nothing was said.
        """
        self.left -= len(part)
        if self.left < 0 or self.reply is None:
            raise BadFrames
        if self.reply.stream is not None:
            self.reply.stream.feed(part)
        else:
            self._parts.append(part)
        if self.left:
            self._window += 1
            self._update_window()
        return not self.left

    def end(self) -> None:
        """Take in that the body has come."""
        assert self.reply is not None
        if self.reply.stream is not None:
            self.reply.stream.end()
        else:
            self.reply.data = b"".join(self._parts)
            self.succeed(self.reply)

    # -- what a body asks of its source --------------------------------------------------------------------

    def pause(self) -> None:
        """Want no more parts for now."""
        self._paused = True

    def resume(self) -> None:
        """Want what was not asked for."""
        self._paused = False
        self._update_window()

    def abandon(self) -> None:
        """Nobody waits for the rest of the answer."""
        self._connection.cancel(self._number)

    def _update_window(self) -> None:
        if self._window and not self._paused:
            parts, self._window = self._window, 0
            self._connection.update_window(self._number, parts)
