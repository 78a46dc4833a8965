"""How many rows are on their way at once: as many as there is room for beside callers, found out by asking."""

from __future__ import annotations

import asyncio
import time
from typing import Final

__all__ = ["Pace"]

_FIRST: Final = 4
_HALVED_EVERY_S: Final = 0.5


class Pace:
    """A limit that grows by one for each round of answers, and halves where there was no room (AIMD, as TCP's).

    Args:
        most: Rows at once, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(most, _FIRST))
        self._running = 0
        self._changed = asyncio.Condition()
        self._not_before = 0.0
        self._halved_at = 0.0

    @property
    def most(self) -> int:
        """Rows at once, at most."""
        return self._most

    @property
    def limit(self) -> int:
        """Rows at once, now."""
        return int(self._limit)

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._running < self.limit)
            self._running += 1
        try:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._running -= 1
        async with self._changed:
            self._changed.notify(max(1, self.limit - self._running))  # it may have grown since

    def answered(self) -> None:
        """Say that there was room for a row."""
        self._limit = min(self._most, self._limit + 1 / self._limit)

    def no_room(self, wait_s: float) -> None:
        """Say that there was none; nothing is sent for ``wait_s`` seconds."""
        now = time.monotonic()
        self._not_before = max(self._not_before, now + wait_s)
        if now - self._halved_at > _HALVED_EVERY_S:  # rows that were sent together are refused together
            self._halved_at = now
            self._limit = max(1.0, self._limit / 2)
