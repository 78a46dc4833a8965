"""Memory for the bodies of requests: no more bytes at once than are set aside for them, in the order of coming.

A body that is larger than all that may be held goes alone, so nobody waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["BodyBudget", "HeldBytes"]


class BodyBudget:
    """The bytes that bodies may take together.

    Args:
        limit_bytes: How many; a larger body is let in when there is no other.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.held_bytes = 0
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[asyncio.Future[HeldBytes], int]] = deque()

    @property
    def waiting(self) -> int:
        """How many bodies wait to be read."""
        return len(self._waiting)

    def take(self, size: int) -> HeldBytes | None:
        """Set bytes aside if there is room and nobody waits for it."""
        return self._take(size) if not self._waiting and self._fits(size) else None

    async def wait(self, size: int) -> HeldBytes:
        """Set bytes aside when it is their turn."""
        future: asyncio.Future[HeldBytes] = asyncio.get_running_loop().create_future()
        waiter = future, size
        self._waiting.append(waiter)
        self._let_in()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().release()  # its turn came in the moment that it left
            else:
                self._waiting.remove(waiter)
                self._let_in()
            raise

    def _give_back(self, size: int) -> None:
        self.held_bytes -= size
        self._let_in()

    def _fits(self, size: int) -> bool:
        return self.held_bytes == 0 or self.held_bytes + size <= self._limit_bytes

    def _take(self, size: int) -> HeldBytes:
        self.held_bytes += size
        return HeldBytes(self, size)

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][0].done() or self._fits(self._waiting[0][1])):
            future, size = self._waiting.popleft()
            if not future.done():
                future.set_result(self._take(size))


class HeldBytes:
    """Bytes set aside for one body, until its request and every call with it have ended."""

    __slots__ = ("_budget", "_holds", "_size")

    def __init__(self, budget: BodyBudget, size: int) -> None:
        self._budget = budget
        self._size = size
        self._holds = 1

    def hold(self) -> None:
        """Keep them until `release` was called once more."""
        self._holds += 1

    def release(self) -> None:
        """Give up one hold."""
        self._holds -= 1
        if self._holds == 0:
            self._budget._give_back(self._size)

    def shrink(self, size: int) -> None:
        """Give back what the body did not need."""
        spare, self._size = self._size - size, size
        self._budget._give_back(spare)
