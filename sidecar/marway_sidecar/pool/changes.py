"""A counter that goes up with every change, and waiting for it."""

from __future__ import annotations

import asyncio

__all__ = ["Changes"]


class Changes:
    """Counts changes and wakes who waits for the next; nothing is kept of what changed."""

    def __init__(self) -> None:
        self._generation = 0
        self._next = asyncio.Event()

    @property
    def generation(self) -> int:
        """How many changes there were."""
        return self._generation

    def bump(self) -> None:
        """Say that something changed."""
        self._generation += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, since: int) -> int:
        """Return the generation once it is past ``since``."""
        while self._generation <= since:
            await self._next.wait()
        return self._generation
