"""Whether what is expected of a client comes in time: a request's head, its body at a rate, and the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal

__all__ = ["Pace", "Part"]

_LOOK_S: Final = 0.5

Part = Literal["headers", "body"]


class Pace:
    """One connection's. A request that comes in one piece needs no timer.

    Args:
        loop: The running one.
        timeouts_s: For each part: of the headers in all; of the body what it may lag behind ``rate``.
        rate: Bytes a second.
        excused: Whether it is no fault of the client that nothing comes.
        late: Told what did not come in time, once.
        keep_alive_s: How long the connection is kept between requests.
        idle: Told when that has passed.

    Attributes:
        part: What is expected now, or None.
    """

    __slots__ = (
        *("_due", "_excused", "_idle", "_idle_since", "_idle_timer", "_keep_alive_s", "_late", "_loop", "_rate"),
        *("_timeouts_s", "_timer", "part"),
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        timeouts_s: dict[Part, float],
        rate: int,
        excused: Callable[[Part], bool],
        late: Callable[[Part], None],
        keep_alive_s: float,
        idle: Callable[[], None],
    ) -> None:
        self.part: Part | None = None
        self._loop = loop
        self._timeouts_s = timeouts_s
        self._rate = rate
        self._excused = excused
        self._late = late
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive_s = keep_alive_s
        self._idle = idle
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def expect(self, part: Part) -> None:
        """Expect this from now on."""
        self.part = part
        self._idle_since = None
        self._due = self._loop.time() + self._timeouts_s[part]

    def came(self, count: int) -> None:
        """Take in that so many bytes came."""
        if self.part == "body":
            self._due = min(self._due + count / self._rate, self._loop.time() + self._timeouts_s["body"])

    def watch(self) -> None:
        """Look from now on whether what is expected comes, if anything is."""
        if self.part is None:
            self.stop()
        elif self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def stop(self) -> None:
        """Expect nothing."""
        self.part = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def rest(self) -> None:
        """Expect the next request; one timer serves all, and is not set anew for each."""
        self._idle_since = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._keep_alive_s, self._look_if_idle)

    def close(self) -> None:
        """Expect nothing any more."""
        self.stop()
        self._idle_since = None
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _look_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return  # a request is under way; `rest` sets it again
        left_s = self._idle_since + self._keep_alive_s - self._loop.time()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._look_if_idle)
        else:
            self._idle()

    def _look(self) -> None:
        self._timer = None
        part = self.part
        if part is None:
            return
        if self._excused(part):
            self._due += _LOOK_S
        elif self._loop.time() >= self._due:
            self._late(part)
            return
        self._timer = self._loop.call_later(_LOOK_S, self._look)
