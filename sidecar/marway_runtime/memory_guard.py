"""Ends the worker that takes too much memory, before the kernel ends the pod for it.

Where a container's limit is reached, the kernel may kill every process of it at once (`memory.oom.group`, which
Kubernetes sets on cgroup v2): one greedy handler would take all models of its pod along. A limit for each worker does
not prevent that, for the others take memory too: so the container's own limit is watched as well, and when little is
left, the worker goes that has grown most in the last seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from marway_runtime.resources import Room
from marway_runtime.workers import Worker

__all__ = ["MemoryGuard", "own_bytes"]

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.05
"""A handler can write about 2 GiB a second: a twentieth of a second of that fits between the guard's limit and the
kernel's, and a look costs some 10 µs a worker."""
_FIND_S: Final = 2.0
"""How often the process table is searched for workers, which takes milliseconds."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1024 * 1024
_LEFT_BYTES: Final = 128 * _MIB
"""What must be left below the container's limit; a sixteenth of the limit where that is less."""
_GROWN_BYTES: Final = 16 * _MIB
"""Less is no growth: when nobody has grown, the largest goes, as the kernel would choose."""
_FREED_S: Final = 1.0
"""How long it may take until a killed worker's memory is back."""


class MemoryGuard:
    """Looks at the workers' memory, and kills the one over its limit.

    Args:
        find: Returns the workers; called in a thread.
        limit_bytes: Most memory of its own that one worker may have.
        room: The container's limit; None where there is none.
        died: Told of each that is killed, while its process is still there.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[Worker]],
        *,
        limit_bytes: int,
        room: Room | None,
        died: Callable[[Worker], None],
    ) -> None:
        self._find = find
        self._limit_bytes = limit_bytes
        self._room = room
        self._keep = min(_LEFT_BYTES, room.limit_bytes // 16) if room is not None else 0
        self._died = died
        self._before: dict[int, int] = {}
        self._lately: dict[int, int] = {}
        self._killed_at = float("-inf")

    async def run(self) -> None:
        """Look until cancelled."""
        workers: Sequence[Worker] = ()
        found_at = float("-inf")
        while True:
            if time.monotonic() - found_at >= _FIND_S:
                workers = await asyncio.to_thread(self._find)
                found_at = time.monotonic()
                self._before, self._lately = self._lately, {worker.pid: own_bytes(worker.pid) for worker in workers}
            if self._look(workers):
                found_at = float("-inf")
            await asyncio.sleep(_LOOK_S)

    def _look(self, workers: Iterable[Worker]) -> bool:
        """Kill who has to go, and return whether anybody had to."""
        taken = {worker: own_bytes(worker.pid) for worker in workers}
        over = [worker for worker, size in taken.items() if size > self._limit_bytes]
        for worker in over:
            self._kill(
                worker,
                f"it had {taken[worker] // _MIB} MiB of memory of its own, and {self._limit_bytes // _MIB} are allowed "
                "(worker_memory_bytes)",
            )
        if over or self._room is None or not taken or time.monotonic() - self._killed_at < _FREED_S:
            return bool(over)
        left = self._room.left_bytes(enough=self._keep)
        if left >= self._keep:
            return False
        grown = {worker: size - self._before.get(worker.pid, 0) for worker, size in taken.items()}
        most = max(grown, key=lambda worker: grown[worker])
        if grown[most] < _GROWN_BYTES:
            most = max(taken, key=lambda worker: taken[worker])
        self._kill(
            most,
            f"{max(0, left) // _MIB} MiB were left of the container's memory limit, and it had "
            f"{taken[most] // _MIB} MiB of its own, {max(0, grown[most]) // _MIB} of them new",
        )
        return True

    def _kill(self, worker: Worker, why: str) -> None:
        self._killed_at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, 0)  # it may have ended by itself
            self._died(worker)
            os.kill(worker.pid, signal.SIGKILL)
            logger.error("worker %d was killed: %s", worker.pid, why)


def own_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file stands behind, in bytes; 0 when it is gone.

    Of `/proc/PID/statm`: what a fork still shares with its parent counts too, so a forked worker begins at about
    100 MiB. What `measured` reads is exact, and takes a thousand times as long.
    """
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):  # an ended process' file is gone or empty
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES
