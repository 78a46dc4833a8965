"""How fast a connection is read and written: by what its request takes, and by what its client takes."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["FlowControl"]

_LEFT: Final = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)  # the last is Linux's
_LOOK_S: Final = 0.1
"""How often a connection that is not read is looked at for its client's leaving."""


class FlowControl:
    """Of one connection.

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
        self._writable: list[asyncio.Future[None]] = []

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
        if self._stalled is None and self._write_timeout_s is not None:
            self._stalled = self._loop.call_later(self._write_timeout_s, self._transport.abort)

    def resume_writing(self) -> None:
        """Take in that the client has read most of it, or the connection is lost."""
        self.write_paused = False
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        writable, self._writable = self._writable, []
        for waiter in writable:
            if not waiter.done():
                waiter.set_result(None)

    async def drain(self) -> None:
        """Return when more can be written, or the connection is lost."""
        while self.write_paused:
            waiter = self._loop.create_future()
            self._writable.append(waiter)
            await waiter

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
                timer = self._loop.call_later(_LOOK_S, look)

        self.pause_reading()
        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self.resume_reading()
