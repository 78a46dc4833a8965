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
        clock: Monotonic seconds.

    Attributes:
        stopping: Whether the process ends after the drain; then it cannot be taken back.
        requests_in_flight: Requests that were admitted and have not ended.
    """

    def __init__(
        self, *, lame_duck_s: float, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stopping = False
        self.requests_in_flight = 0
        self._lame_duck_s = lame_duck_s
        self._changed = changed
        self._clock = clock
        self._began: float | None = None
        self._asked_at = clock()

    @property
    def draining(self) -> bool:
        """Whether a drain has begun."""
        return self._began is not None

    @property
    def refusing(self) -> bool:
        """Whether requests are turned away."""
        return self._began is not None and self._clock() >= self._began + self._lame_duck_s

    def begin(self) -> None:
        """Begin to drain; again changes nothing."""
        if self._began is None:
            self._began = self._clock()
            logger.info("draining", extra={"fields": {"requests_in_flight": self.requests_in_flight}})
            self._changed()

    def take_back(self) -> None:
        """Take requests again; without a drain this changes nothing.

        Raises:
            Conflict: The process is stopping.
        """
        if self.stopping:
            raise Conflict("this pod is stopping, which cannot be taken back: its successor takes requests")
        if self._began is not None:
            self._began = None
            logger.info("serving again")
            self._changed()

    def stop(self, *, at_once: bool = False) -> None:
        """Drain for good.

        Args:
            at_once: Turn requests away from now on: nobody is there who could hear of the drain first.
        """
        self.stopping = True
        self.begin()
        if at_once:
            self._lame_duck_s = 0.0

    def admit(self) -> None:
        """Admit one request, which has to `leave`.

        Raises:
            Draining: The pod takes no more.
        """
        self._asked_at = self._clock()
        if self._began is not None and self.refusing:
            why = "is stopping" if self.stopping else "is drained"
            raise Draining(f"this pod {why} and takes no requests: send it to another")
        self.requests_in_flight += 1

    def leave(self) -> None:
        """End a request that was admitted."""
        self.requests_in_flight -= 1

    async def emptied(self, *, limit_s: float) -> bool:
        """Wait until requests are refused, all that were admitted have ended, and nobody asks any more.

        Args:
            limit_s: How long requests in flight may take once others are refused, in seconds.

        Returns:
            Whether that came about within the limit.
        """
        assert self._began is not None
        limit = self._began + self._lame_duck_s + limit_s
        while not self.refusing or self.requests_in_flight or self._clock() - self._asked_at < _QUIET_S:
            if self._clock() >= limit:
                return self.requests_in_flight == 0
            await asyncio.sleep(_LOOK_S)
        return True
