"""Fetches of archives that are under way: one for each version, whoever waits for it."""

from __future__ import annotations

import asyncio
from functools import partial

from marway.records import VersionRecord
from marway_sidecar.archives.references import ArchiveUse
from marway_sidecar.archives.store import ArchiveStore
from marway_sidecar.threads import Threads

__all__ = ["Fetches"]


class Fetches:
    """Has archives fetched in threads.

    Args:
        archives: Where they are fetched to.
        threads: Where fetching blocks.
    """

    def __init__(self, archives: ArchiveStore, threads: Threads) -> None:
        self._archives = archives
        self._threads = threads
        self._tasks: dict[str, asyncio.Task[ArchiveUse]] = {}

    async def hold(self, record: VersionRecord) -> ArchiveUse:
        """Hold a version's archive in the store. Who stops waiting does not stop the fetch: the next one joins it."""
        task = self._tasks.get(record.id)
        if task is None:
            task = asyncio.create_task(
                self._threads.run(self._archives.use, record.archive), name=f"fetch {record.name} {record.version}"
            )
            self._tasks[record.id] = task
            task.add_done_callback(partial(self._ended, record.id))
        return await asyncio.shield(task)

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
