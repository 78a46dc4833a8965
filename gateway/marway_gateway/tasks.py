"""Background tasks that are named, supervised and cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["TaskSet"]

_RESTART_S = 1.0
_log = logging.getLogger(__name__)


class TaskSet:
    """Runs endless jobs; one that fails is logged and started again, and all end with `aclose`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Run ``job`` as a task called ``name``, over and over."""
        self._tasks.append(asyncio.create_task(_supervised(name, job), name=name))

    async def aclose(self) -> None:
        """Cancel all and wait until they are gone; a second call does nothing."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _supervised(name: str, job: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await job()
        except Exception:
            _log.exception("the task %s failed; it is started again", name)
        await asyncio.sleep(_RESTART_S)
