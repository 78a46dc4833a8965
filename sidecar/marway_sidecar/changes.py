"""One counter that goes up with every change on this pod that is worth telling, and waiting for it."""

from __future__ import annotations

import asyncio

__all__ = ["Changes"]


class Changes:
    """Counts changes and wakes who waits for the next; nothing is kept of what changed."""

    def __init__(self) -> None:
        self.generation = 0
        """How many changes there were."""
        self._next = asyncio.Event()

    def bump(self) -> None:
        """Say that something changed."""
        self.generation += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, generation: int, *, timeout_s: float | None = None) -> bool:
        """Wait until there are changes after ``generation``, and return whether they came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.generation <= generation:
                    await self._next.wait()
        except TimeoutError:
            return False
        return True
