"""How long an event loop had no turn: what one request costs the process's others beyond its own work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

__all__ = ["BUCKETS_S", "watch_loop"]

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of a histogram of these times, seconds."""
_EVERY_S: Final = 0.02
"""A block that begins between two looks is seen shorter than it was, by this at most. 50 looks a second cost next to
nothing."""


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Tell ``observe`` again and again how much later than asked for the running loop came back, in seconds."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(_EVERY_S)
        observe(max(0.0, time.monotonic() - began - _EVERY_S))
