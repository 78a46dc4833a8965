"""How what runs in this process's charge ends: by a signal before its work is done, and in order, or at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable
from typing import Any

from marway.errors import MarwayError
from marway.process.stop_request import StopRequest
from marway_ops.up.local_pods import LocalPods

__all__ = ["close", "unless_stopped"]


async def unless_stopped(stop: StopRequest, *work: Awaitable[None]) -> bool:
    """Do all of ``work``; return False if told to stop first. That, or an error, ends the rest of it."""
    tasks = [asyncio.ensure_future(item) for item in work]
    waiting = asyncio.create_task(stop.wait(), name="wait-for-stop")
    doing: asyncio.Future[Any] = asyncio.gather(*tasks)
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
        return doing.done()
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(doing, *tasks, waiting, return_exceptions=True)


async def close(pods: LocalPods) -> None:
    """Stop pods, and what stands before them; a second Ctrl-C or SIGTERM ends it at once."""
    again = StopRequest()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, again.set)
    closing = asyncio.create_task(pods.aclose(), name="stop-everything")
    impatient = asyncio.create_task(again.wait(), name="wait-for-second-signal")
    await asyncio.wait({closing, impatient}, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not closing.done():
        pods.kill()
    with contextlib.suppress(MarwayError):
        await closing
