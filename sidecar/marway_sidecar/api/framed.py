"""Predictions of a gateway over frames (`marway_http.frames`): many on one connection, answered as they are ready.

What a frame cannot carry is declined unbegun, for the gateway to ask over HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, cast

from marway_http import frames
from marway_http.channel import Channel, HeaderBlock
from marway_http.eager import EagerTask
from marway_http.frames import PART_BYTES, WINDOW_PARTS, BadFrames, FrameReader, FrameWriter, Kind, frame_header

__all__ = ["AnswerFramed", "FramedConnection", "FramesUpgrade"]

_NAME: Final = frames.UPGRADE.encode()
_PATH: Final = frames.PATH.encode()
_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % _NAME
_OF_A_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_HEADERS_MAX: Final = 100
_IDLE_S: Final = 75.0
"""How long a connection is kept that nothing comes over; a gateway closes it sooner."""


AnswerFramed = Callable[[str, Mapping[str, str], str, Channel], Coroutine[Any, Any, None] | None]
"""Returns what answers a request; the request is declined if there is none, or if it ends without an answer. It is
given the request's path (percent-decoded), its headers (names in lower case), the peer's address, and the channel that
has the whole body and takes the answer."""


class FramesUpgrade:
    """Changes a gateway's connection to frames, where it asks for that and ``guard`` lets its headers pass."""

    def __init__(self, answer: AnswerFramed, guard: Callable[[Sequence[tuple[bytes, bytes]]], object]) -> None:
        self._answer = answer
        self._guard = guard

    def asked(self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Return whether this is a gateway that asks for frames."""
        named = dict(headers)
        asks = method == b"GET" and url.partition(b"?")[0] == _PATH and named.get(b"upgrade", b"").lower() == _NAME
        return asks and not _OF_A_BODY & named.keys() and self._guard(headers) is None

    def change(self, transport: asyncio.Transport, server_state: Any, came: bytes) -> None:
        """Change to frames, of which ``came`` is the beginning."""
        framed = FramedConnection(self._answer, server_state.connections)
        transport.set_protocol(framed)
        framed.connection_made(transport)
        transport.write(_SWITCHING)
        if came:
            framed.data_received(came)


class FramedConnection(asyncio.Protocol):
    """One connection that changed to frames.

    It is among the server's ``connections``, which are told to shut down, as long as it is open.
    """

    def __init__(self, answer: AnswerFramed, connections: set[Any]) -> None:
        self._answer = answer
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._transport: asyncio.Transport
        self._writer: FrameWriter
        self._client = ""
        self._open: dict[int, _FramedChannel] = {}
        self._closing = False
        self._heard_at = self._loop.time()
        self._idle: asyncio.TimerHandle | None = None

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writer = FrameWriter(self._transport, self._loop)
        self._client = str((transport.get_extra_info("peername") or ("",))[0])
        self._connections.add(self)
        self._close_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
        channels, self._open = self._open, {}
        for channel in channels.values():
            channel.leave()

    def pause_writing(self) -> None:
        """Take no more requests while the gateway does not read the answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, status, head, body in self._reader.feed(data):
                if kind == Kind.REQUEST:
                    self._begin(number, head, body)
                elif kind not in (Kind.CANCEL, Kind.WINDOW_UPDATE):
                    raise BadFrames
                elif (channel := self._open.get(number)) is None:
                    continue
                elif kind == Kind.CANCEL:
                    self.end(number)
                    channel.leave()
                else:
                    channel.widen(status)
        except BadFrames:
            self._transport.abort()
            return
        self._heard_at = self._loop.time()

    def shutdown(self) -> None:
        """Close as soon as all that was begun is answered; uvicorn calls it."""
        self._closing = True
        self._close_if_done()

    # -- requests ------------------------------------------------------------------------------------------

    def _begin(self, number: int, head: bytes, body: bytes) -> None:
        if number in self._open:
            raise BadFrames
        try:
            path, *lines, end = head.decode("latin-1").split("\r\n")
            if end or len(lines) > _HEADERS_MAX:
                raise ValueError
            headers = dict([line.split(": ", 1) for line in lines])
        except ValueError:  # this request's fault, which must not cost others their connection: HTTP says what it is
            self.write(frame_header(Kind.DECLINED, number))
            return
        channel = self._open[number] = _FramedChannel(self, number, body)
        channel.start(self._answer(path, headers, self._client, channel))

    def write(self, frame: bytes) -> None:
        """Send a frame."""
        self._writer.write(frame, under_way=len(self._open))

    def end(self, number: int) -> None:
        """Take in that a request was answered or declined, or that nobody waits for it."""
        self._open.pop(number, None)
        if self._closing:
            self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._open and not self._transport.is_closing():
            self._writer.flush()
            self._transport.close()

    def _close_if_idle(self) -> None:
        left = _IDLE_S if self._open else self._heard_at + _IDLE_S - self._loop.time()
        if left > 0:
            self._idle = self._loop.call_later(left, self._close_if_idle)
        else:
            self._transport.close()


class _FramedChannel:
    """One request's way to its gateway and back."""

    __slots__ = (
        *("_connection", "_gone", "_left", "_number", "_rest", "_run", "_window"),
        *("body", "reason", "received", "started"),
    )

    def __init__(self, connection: FramedConnection, number: int, body: bytes) -> None:
        self.body: bytes | None = body
        self.received = True
        self.started = False
        self.reason: Exception | None = None
        self._run: EagerTask | None = None
        self._connection = connection
        self._number = number
        self._gone: Callable[[], None] | None = None
        self._left = False
        self._rest: memoryview | None = None
        self._window = WINDOW_PARTS

    def start(self, answering: Coroutine[Any, Any, None] | None) -> None:
        """Have the request answered; without an answer at the end of that, or without any of it, it is declined."""
        if answering is None:
            self._done()
            return
        self._run = EagerTask(answering, self._done)
        if self.reason is not None:
            self._run.interrupt(self.reason)

    def interrupt(self, reason: Exception) -> None:
        if self.reason is None:
            self.reason = reason
            if self._run is not None:
                self._run.interrupt(reason)

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone
        if gone is not None and self._left:
            self.leave()

    def leave(self) -> None:
        """Take in that nobody waits for the answer."""
        self._left = True
        self._rest = None
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def _done(self) -> None:
        if not (self.started or self._left):
            self._connection.write(frame_header(Kind.DECLINED, self._number))
            self._connection.end(self._number)

    async def answer(self, status: int, headers: HeaderBlock, body: bytes, *, close: bool = False) -> None:
        self.started = True
        if self._left:
            return
        head, _, shared = headers
        if shared:
            head = b"%b\r\n%b" % (head[:shared], head[shared:])
        number, connection = self._number, self._connection
        if len(body) <= PART_BYTES:
            header = frame_header(Kind.ANSWER, number, head=len(head), body=len(body), status=status)
            connection.write(header + head + body)
            connection.end(number)
            return
        header = frame_header(Kind.ANSWER, number, head=len(head), body=PART_BYTES, status=status)
        self._rest = memoryview(body)[PART_BYTES:]
        connection.write(b"".join((header, head, body[:PART_BYTES])))
        self.widen(-1)

    def widen(self, parts: int) -> None:
        """Send what there is of a large answer, as far as the gateway wants it: so many parts more than it did."""
        self._window += parts
        while self._rest is not None and self._window > 0:
            part, self._rest = self._rest[:PART_BYTES], self._rest[PART_BYTES:]
            self._window -= 1
            header = frame_header(Kind.PART, self._number, body=len(part))
            self._connection.write(b"".join((header, part)))
            if not self._rest:
                self._rest = None
                self._connection.end(self._number)
