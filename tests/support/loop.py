"""How long the event loop of a test had no turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from marway_http.loop_watch import watch_loop

__all__ = ["LOOSE_S", "blocked"]

LOOSE_S = 1.0
"""A bound for tests: 20 times what is promised, for machines that are busy; what these tests found took 2 s to 38 s."""


@contextlib.asynccontextmanager
async def blocked() -> AsyncIterator[list[float]]:
    """Give a list that gets the times, in seconds, in which the loop had no turn while the context was open."""
    seen: list[float] = []
    watching = asyncio.create_task(watch_loop(seen.append), name="watch-loop")
    await asyncio.sleep(0)
    try:
        yield seen
        while not seen:
            await asyncio.sleep(0)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
