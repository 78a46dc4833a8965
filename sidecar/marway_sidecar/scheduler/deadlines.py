"""The first deadline of many jobs: one timer for all, as most jobs end long before theirs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

__all__ = ["FirstDeadline"]


class FirstDeadline:
    """Calls ``passed`` when the earliest deadline that was noted is over, once; all others are noted again then."""

    def __init__(self, passed: Callable[[], None]) -> None:
        self._passed = passed
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def note(self, at: float) -> None:
        """Take in a deadline, on the monotonic clock."""
        if at >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer, self._at = None, math.inf
        self._passed()
