"""Predictions of a gateway over frames (`marway_http.frames`): many on one connection, answered as they are ready.

What can be begun without a task is; anything else is sent back unbegun, for the gateway to ask over HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from starlette.responses import Response

from marway_http import frames
from marway_http.frames import PART_BYTES, WINDOW_PARTS, BadFrames, FrameReader, Kind, frame_header
from marway_sidecar.api.channel import Channel, Reply

__all__ = ["FramedApp", "FramedConnection", "FramesUpgrade"]

_NAME: Final = frames.UPGRADE.encode()
_PATH: Final = frames.PATH.encode()
_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % _NAME
_OF_A_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_HEADERS_MAX: Final = 100
_IDLE_S: Final = 75.0
"""How long a connection is kept that nothing comes over; a gateway closes it sooner."""


class FramedApp(Protocol):
    """What begins predictions."""

    def begin(self, path: str, headers: Mapping[str, str], client: str, channel: Channel, body: bytes) -> bool:
        """Begin a prediction without a task, and return True; False leaves it as if it were unseen.

        Args:
            path: `/predict/...`, percent-decoded.
            headers: The request's, names in lower case.
            client: The peer's address.
            channel: Where the answer goes.
            body: All of it.
        """


class FramesUpgrade:
    """Changes a gateway's connection to frames, where it asks for that.

    Args:
        app: What begins predictions, and says who may ask.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def asked(self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Return whether this is a gateway that asks for frames."""
        named = dict(headers)
        asks = method == b"GET" and url.partition(b"?")[0] == _PATH and named.get(b"upgrade", b"").lower() == _NAME
        return asks and not _OF_A_BODY & named.keys() and self._app.guard(headers) is None

    def change(self, transport: asyncio.Transport, server_state: Any, came: bytes) -> None:
        """Change to frames, of which ``came`` is the beginning."""
        framed = FramedConnection(self._app, server_state.connections)
        transport.set_protocol(framed)
        framed.connection_made(transport)
        transport.write(_SWITCHING)
        if came:
            framed.data_received(came)


class FramedConnection(asyncio.Protocol):
    """One connection that changed to frames.

    Args:
        app: What begins predictions.
        connections: All connections of the server, to be told to shut down: this one is among them as long as it is
            open.
    """

    def __init__(self, app: FramedApp, connections: set[Any]) -> None:
        self._app = app
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._transport: asyncio.Transport
        self._client = ""
        self._at_work: dict[int, _FramedChannel] = {}
        self._closing = False
        self._heard_at = self._loop.time()
        self._idle: asyncio.TimerHandle | None = None

    # -- the transport -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client = str((transport.get_extra_info("peername") or ("",))[0])
        self._connections.add(self)
        self._look_if_idle(_IDLE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
        at_work, self._at_work = self._at_work, {}
        for channel in at_work.values():
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
                elif kind == Kind.CANCEL:
                    channel = self._at_work.pop(number, None)
                    if channel is not None:
                        channel.leave()
                        self.ended(number)
                elif kind == Kind.WINDOW_UPDATE:
                    channel = self._at_work.get(number)
                    if channel is not None:
                        channel.send_parts(status)
                else:
                    raise BadFrames
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
        if number in self._at_work:
            raise BadFrames
        try:
            path, *lines, end = head.decode("latin-1").split("\r\n")
            if end or len(lines) > _HEADERS_MAX:
                raise ValueError
            headers = dict([line.split(": ", 1) for line in lines])
        except ValueError:  # this request's fault, which must not cost others their connection: HTTP says what it is
            self._transport.write(frame_header(Kind.DECLINED, number))
            return
        channel = self._at_work[number] = _FramedChannel(self, number)
        try:
            begun = self._app.begin(path, headers, self._client, channel, body)
        except Exception:
            begun = False  # over HTTP it fails as well, and is reported
        if not begun:
            del self._at_work[number]
            self._transport.write(frame_header(Kind.DECLINED, number))

    def send(self, frame: bytes) -> None:
        """Send what a request's channel has to say."""
        self._transport.write(frame)

    def ended(self, number: int) -> None:
        """Take in that a request was answered, or that nobody waits for it."""
        self._at_work.pop(number, None)
        if self._closing:
            self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._at_work and not self._transport.is_closing():
            self._transport.close()

    # -- time ----------------------------------------------------------------------------------------------

    def _look_if_idle(self, within_s: float) -> None:
        self._idle = self._loop.call_later(within_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        left = self._heard_at + _IDLE_S - self._loop.time()
        if self._at_work:
            left = _IDLE_S
        if left > 0:
            self._look_if_idle(left)
        else:
            self._transport.close()


class _FramedChannel:
    """One request's way back to its gateway."""

    __slots__ = ("_connection", "_gone", "_left", "_number", "_rest", "_window", "received", "started")

    def __init__(self, connection: FramedConnection, number: int) -> None:
        self.received = True
        self.started = False
        self._connection = connection
        self._number = number
        self._gone: Callable[[], None] | None = None
        self._left = False
        self._rest: memoryview | None = None
        self._window = WINDOW_PARTS

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

    def answer_now(self, reply: Reply, *, close: bool) -> bool:
        self.started = True
        if self._left:
            return True
        status, head, body, known = reply
        if known:
            head = b"%b\r\n%b" % (head[:known], head[known:])
        number, connection = self._number, self._connection
        if len(body) <= PART_BYTES:
            header = frame_header(Kind.ANSWER, number, head=len(head), body=len(body), status=status)
            connection.send(header + head + body)
            connection.ended(number)
            return True
        header = frame_header(Kind.ANSWER, number, head=len(head), body=PART_BYTES, status=status)
        self._rest = memoryview(body)[PART_BYTES:]
        connection.send(b"".join((header, head, body[:PART_BYTES])))
        self.send_parts(-1)
        return True

    def send_parts(self, more: int) -> None:
        """Send what there is of a large answer, as far as the gateway wants it.

        Args:
            more: How many parts it wants beyond those that it did.
        """
        self._window += more
        while self._rest is not None and self._window > 0:
            part, self._rest = self._rest[:PART_BYTES], self._rest[PART_BYTES:]
            self._window -= 1
            header = frame_header(Kind.PART, self._number, body=len(part))
            self._connection.send(b"".join((header, part)))
            if not self._rest:
                self._rest = None
                self._connection.ended(self._number)

    async def answer(self, reply: Reply, *, close: bool) -> None:
        self.answer_now(reply, close=close)

    async def respond(self, response: Response, *, close: bool) -> None:
        head = b"".join(b"%b: %b\r\n" % each for each in response.raw_headers)
        self.answer_now(Reply(response.status_code, head, bytes(response.body)), close=close)
