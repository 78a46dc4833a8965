"""Fetches of archives and wheels that are under way, in threads."""

from __future__ import annotations

import asyncio
from functools import partial

from marway.archive_store.layout import ArchiveUse
from marway.archive_store.store import ArchiveStore
from marway.environments.lock import EnvironmentLock
from marway.records import VersionRecord
from marway_sidecar.threads import Threads

__all__ = ["Fetches"]


class Fetches:
    """Fetches of archives that are under way, in threads: one for each version, whoever waits for it."""

    def __init__(self, archives: ArchiveStore, threads: Threads) -> None:
        self._archives = archives
        self._threads = threads
        self._tasks: dict[str, asyncio.Task[ArchiveUse]] = {}

    async def hold(self, record: VersionRecord) -> ArchiveUse:
        """Hold a version's archive in the store. Who stops waiting does not stop the fetch: the next one joins it."""
        task = self._tasks.get(record.id)
        if task is None:
            fetch = self._threads.run(self._archives.use, record.archive)
            task = asyncio.create_task(fetch, name=f"fetch {record.name} {record.version}")
            self._tasks[record.id] = task
            task.add_done_callback(partial(self._ended, record.id))
        return await asyncio.shield(task)

    async def hold_wheels(self, lock: EnvironmentLock) -> tuple[ArchiveUse, ...]:
        """Hold the wheels of a lock in the store; all of them, or none."""
        fetches = (self._threads.run(self._archives.use, wheel) for wheel in lock.wheels)
        found = await asyncio.gather(*fetches, return_exceptions=True)
        uses = tuple(each for each in found if isinstance(each, ArchiveUse))
        failed = next((each for each in found if isinstance(each, BaseException)), None)
        if failed is not None:
            for use in uses:
                use.close()
            raise failed
        return uses

    async def aclose(self) -> None:
        """Wait for none any more; their threads end with the store."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, record_id: str, task: asyncio.Task[ArchiveUse]) -> None:
        del self._tasks[record_id]
        if not task.cancelled():
            task.exception()  # who still waits is told; when nobody does, it is no mistake
