"""One connection to a sidecar with many requests on it at a time (`marway.wire.frames`)."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from marway.wire import frames
from marway.wire.frames import BadFrames, FrameReader, Kind, frame_header
from marway_gateway.predict.reply import PodLost
from marway_gateway.transport.response import Response, Waiter, answer_to
from marway_gateway.transport.response_headers import said_in_lines, said_of

__all__ = ["FramedConnection", "FramedRequest"]

_IDLE_S: Final = 15.0
"""How long a connection without requests is kept, less than any sidecar keeps it."""
_HANDSHAKE_BYTES_MAX: Final = 16 * 1024
_HEADERS_MAX: Final = 200
_NO_BODY: Final = frozenset({204, 304})
_WAITING_BYTES_MAX: Final = 1024 * 1024
"""Of requests that the kernel did not take yet; with more, the next ones take other connections."""


class FramedRequest:
    """One request on a connection with others; the source of its answer, where that streams.

    Attributes:
        head, body: What was sent.
        elsewhere: Whether the sidecar gave it back unbegun, to be sent over HTTP.
        sent_at: When it was sent, by the loop's clock.
        waiter: Given the response or the failure, and then forgotten: it may hold this, and would keep both alive.
        response: The answer, once its head has come, if its body goes on.
        left: Bytes of that body that are to come.
        whole: What has come, of one that is read before it is given.
    """

    __slots__ = (
        "_connection",
        "_number",
        "_owed",
        "_paused",
        "body",
        "elsewhere",
        "head",
        "left",
        "response",
        "sent_at",
        "waiter",
        "whole",
    )

    def __init__(
        self, connection: FramedConnection, number: int, head: bytes, body: bytes, waiter: Waiter, sent_at: float
    ) -> None:
        self.head = head
        self.body = body
        self.waiter: Waiter | None = waiter
        self.sent_at = sent_at
        self.elsewhere = False
        self.response: Response | None = None
        self.left = 0
        self.whole: list[bytes] | None = None
        self._connection = connection
        self._number = number
        self._paused = False
        self._owed = 0

    async def answer(self, waiter: asyncio.Future[Response]) -> Response:
        """Return the response to the request, as ``waiter`` has it; who is cancelled wants none.

        Raises:
            PodLost: There is no response; the request may have been running.
        """
        return await answer_to(waiter, self.abandon)

    def feed(self, part: bytes) -> bool:
        """Take in a part of a body that goes on; return whether it was the last.

        Raises:
            BadFrames: It is longer than was said.
        """
        self.left -= len(part)
        if self.left < 0 or self.response is None:
            raise BadFrames
        if self.whole is not None:
            self.whole.append(part)
        else:
            self.response.feed(part)
        if self.left:
            self._owed += 1
            self._want()
        return not self.left

    # -- what a response asks of its source ----------------------------------------------------------------

    def pause(self) -> None:
        """Want no more parts for now."""
        self._paused = True

    def resume(self) -> None:
        """Want what was not asked for."""
        self._paused = False
        self._want()

    def abandon(self) -> None:
        """Nobody waits for the answer any more, or for its rest."""
        self._connection.cancel(self._number)

    def _want(self) -> None:
        if self._owed and not self._paused:
            owed, self._owed = self._owed, 0
            self._connection.ask_more(self._number, owed)


class FramedConnection(asyncio.Protocol):
    """Sends requests and gives their responses, as they come.

    Args:
        authority: Host and port, as the `Host` header has them.
        path: Of the sidecar's base URL.
        buffered_bytes: The largest body that is read before the response is given.

    Attributes:
        opened: Whether the sidecar changed to frames, once it has said so or closed the connection.
        ready: Whether a request may be sent.
        over: Whether none will be any more.
    """

    def __init__(self, authority: str, path: str, *, buffered_bytes: int) -> None:
        self.ready = False
        self.over = False
        self._handshake = (
            f"GET {path}{frames.PATH} HTTP/1.1\r\nhost: {authority}\r\nconnection: upgrade\r\n"
            f"upgrade: {frames.UPGRADE}\r\n\r\n"
        )
        self._buffered_bytes = buffered_bytes
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[bool] = self._loop.create_future()
        self._transport: asyncio.Transport
        self._reader = FrameReader()
        self._said = b""
        self._switched = False
        self._waiting: dict[int, FramedRequest] = {}
        self._number = 0
        self._heard_at = 0.0
        self._idle: asyncio.TimerHandle | None = None

    def send(self, head: bytes, body: bytes, waiter: Waiter) -> FramedRequest:
        """Send a request.

        Args:
            head: The path and headers, a line each with its end.
            body: All of the body, of `REQUEST_BYTES_MAX` at most.
            waiter: Given the response or the failure, in the midst of the connection's work; must not raise anything.
        """
        number = self._number = (self._number + 1) & 0xFFFF_FFFF
        request = self._waiting[number] = FramedRequest(self, number, head, body, waiter, self._loop.time())
        # The loop puts together what is written in one turn of it.
        self._transport.write(frame_header(Kind.REQUEST, number, head=len(head), body=len(body)) + head + body)
        return request

    def leave(self) -> None:
        """Send no more requests, and close when all are answered."""
        self.over = True
        self.ready = False
        if not self._waiting:
            self._transport.close()

    # -- told by requests ----------------------------------------------------------------------------------

    def cancel(self, number: int) -> None:
        """Have nobody wait for an answer.

        A connection over which nothing came since the request was sent is left: it may be a dead one.
        """
        request = self._waiting.pop(number, None)
        if request is None:
            return
        request.waiter = request.response = None  # both may hold the request
        if self._transport.is_closing():
            return
        self._transport.write(frame_header(Kind.CANCEL, number))
        if self.over or self._heard_at < request.sent_at:
            self.leave()

    def ask_more(self, number: int, parts: int) -> None:
        """Have the sidecar send so many parts more of an answer."""
        if number in self._waiting and not self._transport.is_closing():
            self._transport.write(frame_header(Kind.WINDOW_UPDATE, number, status=parts))

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WAITING_BYTES_MAX)
        self._transport.write(self._handshake.encode("latin-1"))

    def eof_received(self) -> None:
        self.over = True
        self.ready = False  # it is lost as soon as this turn of the loop ends, in which others may send

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(PodLost("closed the connection before it had answered", reason="connection_lost"))

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = self._switched and not self.over

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            if not self._switched:
                data = self._shaken(data)
            for kind, number, status, head, body in self._reader.feed(data):
                request = self._waiting.get(number)
                if request is None:
                    continue  # nobody waits for it any more
                if kind == Kind.ANSWER:
                    self._answered(number, request, status, head, body)
                elif kind == Kind.PART:
                    if request.feed(body):
                        self._end(number, request)
                elif kind == Kind.DECLINED and request.response is None:
                    request.elsewhere = True
                    self._give(number, request, _NOTHING, b"")
                else:
                    raise BadFrames
        except (BadFrames, ValueError):
            self._fail(PodLost("answered with something else than frames", reason="bad_answer"))
            return
        if self.over and not self._waiting:
            self._transport.close()

    def _shaken(self, data: bytes) -> bytes:
        """Take in the answer to the handshake; return what came behind it."""
        self._said += data
        said, end, rest = self._said.partition(b"\r\n\r\n")
        if not end:
            if len(said) > _HANDSHAKE_BYTES_MAX:
                raise BadFrames
            return b""
        status, *lines = said.lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        if not status.startswith(b"http/1.1 101 ") or headers.get(b"upgrade") != frames.UPGRADE.encode():
            raise BadFrames
        self._switched = self.ready = True
        self._said = b""
        if not self.opened.done():
            self.opened.set_result(True)
        self._look_if_idle(_IDLE_S)
        return rest

    def _fail(self, error: PodLost) -> None:
        self.over = True
        self.ready = False
        if self._idle is not None:
            self._idle.cancel()
        self._transport.abort()
        waiting, self._waiting = self._waiting, {}
        others = PodLost(error.why, reason=error.reason, counted=False)
        if not self.opened.done():
            self.opened.set_result(False)
        for request in waiting.values():
            waiter, request.waiter = request.waiter, None
            if waiter is None:
                assert request.response is not None
                request.response.end(error)
            elif not waiter.done():
                waiter.set_exception(error)
                error = others

    # -- answers -------------------------------------------------------------------------------------------

    def _answered(self, number: int, request: FramedRequest, status: int, head: bytes, body: bytes) -> None:
        if request.response is not None:
            raise BadFrames
        try:
            said = said_in_lines(head)
            length = said.content_length if said.content_length is not None else len(body)
            if status in _NO_BODY:
                length = 0
            if len(said.passed) > _HEADERS_MAX or not 200 <= status <= 599 or length < len(body):
                raise ValueError
        except ValueError:
            self._refuse(number, request)
            return
        if length == len(body):
            self._give(number, request, Response(status, said, length, None), body)
            return
        request.response = response = Response(status, said, length, request)
        request.left = length
        if length <= self._buffered_bytes:
            request.whole = []
            request.feed(body)
        else:
            request.feed(body)
            _tell(request, response)

    def _refuse(self, number: int, request: FramedRequest) -> None:
        """Take in an answer that is none, in frames that are: it costs this request alone."""
        del self._waiting[number]
        self._transport.write(frame_header(Kind.CANCEL, number))  # what follows of it is not wanted
        waiter, request.waiter = request.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(PodLost("answered with headers that are none", reason="bad_answer"))

    def _give(self, number: int, request: FramedRequest, response: Response, data: bytes) -> None:
        del self._waiting[number]
        response.data = data
        _tell(request, response)

    def _end(self, number: int, request: FramedRequest) -> None:
        response = request.response
        assert response is not None
        response.end()
        if request.whole is not None:
            self._give(number, request, response, b"".join(request.whole))
        else:
            del self._waiting[number]

    # -- time ----------------------------------------------------------------------------------------------

    def _look_if_idle(self, within_s: float) -> None:
        self._idle = self._loop.call_later(within_s, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        left = self._heard_at + _IDLE_S - self._loop.time()
        if self._waiting:
            left = _IDLE_S
        if left > 0:
            self._look_if_idle(left)
        else:
            self.leave()


def _tell(request: FramedRequest, response: Response) -> None:
    waiter, request.waiter = request.waiter, None
    if waiter is not None and not waiter.done():
        waiter.set_result(response)


_NOTHING: Final = Response(0, said_of([]), 0, None)
"""Stands for the response to a request that the sidecar gave back."""
