"""What the clients of one port may do, and what holds a connection to that: its pace, and its flow both ways.

A request that comes in one piece, and an answer that its client takes, need nothing of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from marway_http.channel import Headers

if TYPE_CHECKING:
    from marway_http.http1.connection import HttpConnection

__all__ = ["ConnectionLimits", "FlowControl", "Pace", "Part", "Upgrade"]

Part = Literal["headers", "body"]

_LEFT: Final = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # the last is Linux's
_LEFT_EVERY_S: Final = 0.1
"""How often a connection that is not read is looked at for its client's leaving."""
_LATE_EVERY_S: Final = 0.5
"""How often what is expected of a client is looked for."""


class Upgrade(Protocol):
    """Another protocol that a connection may change to."""

    def asked(self, method: bytes, url: bytes, headers: Headers) -> bool:
        """Return whether a request asks for it, and gets it."""

    def change(self, transport: asyncio.Transport, server_state: Any, came: bytes) -> None:
        """Go on in it; ``came`` is its beginning."""


@dataclass(slots=True)
class ConnectionLimits:
    """What one port's clients may do; times in seconds.

    Attributes:
        header_timeout_s: For a request's headers.
        body_timeout_s: For its body: what it may lag behind ``body_min_rate``.
        body_min_rate: Bytes a second.
        max_connections: How many may be connected; None for any number.
        write_timeout_s: For reading on when an answer fills the connection; None for ever.
        piece_bytes: The least that the application is given of a body, unless it is the last.
        kept_bytes: Free memory that the process keeps for the next large body.
        refusal_headers: Lines that answers have which the connection gives by itself.
        cors: Gives the headers by which browsers let other origins' pages read answers, from those of a request.
        upgrade: What a connection may change to.
        leaving: Whether each answer should be its connection's last.
    """

    header_timeout_s: float
    body_timeout_s: float
    body_min_rate: int
    max_connections: int | None = None
    write_timeout_s: float | None = None
    piece_bytes: int = 1
    kept_bytes: int = 8 * 1024 * 1024
    refusal_headers: bytes = b""
    cors: Callable[[Headers], Headers] | None = None
    upgrade: Upgrade | None = None
    leaving: bool = False


class Pace:
    """Whether what is expected of a client comes in time: a request's head, its body at a rate, and the next request.

    The connection says in the attributes what that is; it calls only for what has not come whole.

    Args:
        connection: Told what did not come in time, once, and closed when it was kept long enough between requests.
        limits: Of the headers in all; of the body what it may lag behind its rate.
        keep_alive_s: How long the connection is kept between requests.

    Attributes:
        part: What is expected now, or None.
        due: When it is late, by the loop's clock; None until `watch` has seen that it does not come at once.
        resting_since: When the latest request ended, by the loop's clock; None while one is under way.
    """

    __slots__ = ("_connection", "_idle_timer", "_keep_alive_s", "_limits", "_timer", "due", "part", "resting_since")

    def __init__(self, connection: HttpConnection, limits: ConnectionLimits, keep_alive_s: float) -> None:
        self.part: Part | None = "headers"
        self.due: float | None = None
        self.resting_since: float | None = None
        self._connection = connection
        self._limits = limits
        self._keep_alive_s = keep_alive_s
        self._timer: asyncio.TimerHandle | None = None
        # One timer serves all pauses between requests, and is not set anew for each.
        self._idle_timer = connection.loop.call_later(keep_alive_s, self._look_if_idle)

    def watch(self, count: int = 0) -> None:
        """Look from now on whether what is expected comes; so many bytes of it did just now."""
        limits, now = self._limits, self._connection.loop.time()
        allowed_s = limits.body_timeout_s if self.part == "body" else limits.header_timeout_s
        if self.due is None:
            self.due = now + allowed_s
        elif self.part == "body":
            self.due = min(self.due + count / limits.body_min_rate, now + allowed_s)
        if self._timer is None:
            self._timer = self._connection.loop.call_later(_LATE_EVERY_S, self._look)

    def stop(self) -> None:
        """Expect nothing."""
        self.part = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Expect nothing any more, no further request either."""
        self.stop()
        self._idle_timer.cancel()

    def _look_if_idle(self) -> None:
        loop, left_s = self._connection.loop, self._keep_alive_s
        if self.resting_since is not None:
            left_s += self.resting_since - loop.time()
        if left_s > 0:
            self._idle_timer = loop.call_later(left_s, self._look_if_idle)
        else:
            self._connection.transport.close()

    def _look(self) -> None:
        self._timer = None
        part, due, loop = self.part, self.due, self._connection.loop
        if part is None or due is None:
            return
        if self._connection.excuses(part):
            self.due = due + _LATE_EVERY_S
        elif loop.time() >= due:
            self._connection.late(part)
            return
        self._timer = loop.call_later(_LATE_EVERY_S, self._look)


class FlowControl:
    """How fast a connection is read and written: by what its request takes, and by what its client takes.

    Args:
        transport: The connection's.
        loop: The running one.
        write_timeout_s: How long the client may read nothing while an answer fills the connection; None for ever.

    Attributes:
        read_paused: Whether nothing is read.
        write_paused: Whether an answer fills the connection.
    """

    __slots__ = ("_loop", "_stalled", "_transport", "_writable", "_write_timeout_s", "read_paused", "write_paused")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, write_timeout_s: float | None
    ) -> None:
        self.read_paused = self.write_paused = False
        self._transport = transport
        self._loop = loop
        self._write_timeout_s = write_timeout_s
        self._stalled: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()

    def pause_reading(self) -> None:
        """Read nothing, until `resume_reading`."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Take in that an answer fills the connection."""
        self.write_paused = True
        self._writable.clear()
        if self._stalled is None and self._write_timeout_s is not None:
            self._stalled = self._loop.call_later(self._write_timeout_s, self._transport.abort)

    def resume_writing(self) -> None:
        """Take in that the client has read most of it, or the connection is lost."""
        self.write_paused = False
        self._writable.set()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    async def drain(self) -> None:
        """Return when more can be written, or the connection is lost."""
        while self.write_paused:
            await self._writable.wait()

    @contextlib.contextmanager
    def unread(self, gone: Callable[[], None]) -> Iterator[None]:
        """Read nothing while the context is open, and have ``gone`` called when the client leaves all the same.

        What it sent stays in the kernel, which then makes the client wait. A connection that is not read tells
        nobody of its end, so it is looked at now and then.
        """
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _LEFT)
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if self._transport.is_closing() or poll.poll(0):
                gone()
            else:
                timer = self._loop.call_later(_LEFT_EVERY_S, look)

        self.pause_reading()
        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self.resume_reading()
