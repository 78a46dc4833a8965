"""Whether this pod takes requests, and how it stops without losing one.

::

    serving ──drain──▶ lame duck ──(lame_duck_s)──▶ refusing ──▶ empty ──(only when stopping)──▶ exit
       ▲                   │                            │
       └──── taken back ───┴────────────────────────────┘

A lame duck says everywhere that it drains and still takes requests, because whoever sends them has not heard yet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from marway.errors import Conflict, Draining

__all__ = ["Drain"]

logger = logging.getLogger(__name__)

_QUIET_S: Final = 0.25
"""A stopping pod closes its port once nobody has asked it for so long: who asks while it closes gets no answer."""
_LOOK_S: Final = 0.02


class Drain:
    """Admits requests, counts them, and turns them away when it is time.

    Args:
        lame_duck_s: How long requests are still taken after a drain began, in seconds.
        changed: Told when `draining` changes.

    Attributes:
        draining: Whether a drain has begun.
        stopping: Whether the process ends after the drain; then it cannot be taken back.
        requests_in_flight: Requests that passed `check` and have not ended. Whoever takes one counts it.
        asked_at: When the last request came, on the monotonic clock.
    """

    def __init__(self, *, lame_duck_s: float, changed: Callable[[], None]) -> None:
        self.draining = False
        self.stopping = False
        self.requests_in_flight = 0
        self.asked_at = time.monotonic()
        self._lame_duck_s = lame_duck_s
        self._changed = changed
        self._began = 0.0

    @property
    def refusing(self) -> bool:
        """Whether requests are turned away."""
        return self.draining and time.monotonic() >= self._began + self._lame_duck_s

    def begin(self) -> None:
        """Begin to drain; again changes nothing."""
        if not self.draining:
            self.draining, self._began = True, time.monotonic()
            logger.info("draining", extra={"fields": {"requests_in_flight": self.requests_in_flight}})
            self._changed()

    def take_back(self) -> None:
        """Take requests again; without a drain this changes nothing.

        Raises:
            Conflict: The process is stopping.
        """
        if self.stopping:
            raise Conflict("this pod is stopping, which cannot be taken back: its successor takes requests")
        if self.draining:
            self.draining = False
            logger.info("serving again")
            self._changed()

    def stop(self, *, at_once: bool = False) -> None:
        """Drain for good; ``at_once`` if nobody is there who could hear of it before requests are turned away."""
        self.stopping = True
        self.begin()
        if at_once:
            self._lame_duck_s = 0.0

    def check(self) -> None:
        """Return where a request may be taken.

        Raises:
            Draining: The pod takes no more.
        """
        if self.refusing:
            why = "is stopping" if self.stopping else "is drained"
            raise Draining(f"this pod {why} and takes no requests: send it to another")

    async def emptied(self, *, limit_s: float) -> bool:
        """Wait until requests are refused, all that were admitted have ended, and nobody asks any more.

        Return whether that came about within ``limit_s`` from when requests are refused.
        """
        assert self.draining
        limit = self._began + self._lame_duck_s + limit_s
        while not self.refusing or self.requests_in_flight or time.monotonic() - self.asked_at < _QUIET_S:
            if time.monotonic() >= limit:
                return self.requests_in_flight == 0
            await asyncio.sleep(_LOOK_S)
        return True
