"""Background tasks that are named, supervised and cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from marway.errors import MarwayError

__all__ = ["Jobs", "TaskSet"]

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


class Jobs:
    """Does things that nobody waits for, once each; what goes wrong is in the log, and all end with `aclose`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, job: Callable[[], Awaitable[object]]) -> None:
        """Do ``job`` as a task called ``name``, of which there may be several."""
        task = asyncio.create_task(_done(name, job), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self, name: str) -> bool:
        """Cancel all of a name but the task that asks, and wait until they are gone; return whether there was any."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task.get_name() == name and task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return bool(tasks)

    async def aclose(self) -> None:
        """Cancel all and wait until they are gone; a second call does nothing."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _done(name: str, job: Callable[[], Awaitable[object]]) -> None:
    try:
        await job()
    except MarwayError as exc:
        _log.warning("%s failed: %s", name, exc.message)
    except Exception:
        _log.exception("%s failed", name)


async def _supervised(name: str, job: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await job()
        except Exception:
            _log.exception("the task %s failed; it is started again", name)
        await asyncio.sleep(_RESTART_S)
