"""Ends the worker that takes too much memory, before the kernel ends the pod for it.

Where a container's limit is reached, the kernel may kill every process of it at once (`memory.oom.group`, which
Kubernetes sets on cgroup v2): one greedy handler would take all models of its pod along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from marway_runtime.metrics import RuntimeMetrics
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


class MemoryGuard:
    """Looks at the workers' memory, and kills the one over its limit.

    Args:
        find: Returns the workers; called in a thread.
        limit_bytes: Most memory of its own that one worker may have.
        metrics: Where kills are counted.
    """

    def __init__(self, find: Callable[[], Sequence[Worker]], *, limit_bytes: int, metrics: RuntimeMetrics) -> None:
        self._find = find
        self._limit_bytes = limit_bytes
        self._metrics = metrics

    async def run(self) -> None:
        """Look until cancelled."""
        pids: list[int] = []
        found_at = float("-inf")
        while True:
            if time.monotonic() - found_at >= _FIND_S:
                pids = [worker.pid for worker in await asyncio.to_thread(self._find)]
                found_at = time.monotonic()
            for pid in pids:
                taken = own_bytes(pid)
                if taken > self._limit_bytes:
                    self._kill(pid, taken)
                    found_at = float("-inf")
            await asyncio.sleep(_LOOK_S)

    def _kill(self, pid: int, taken: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            logger.error(
                "worker %d was killed: it had %d MiB of memory of its own, and %d are allowed (worker_memory_bytes)",
                pid,
                taken // _MIB,
                self._limit_bytes // _MIB,
            )
            self._metrics.kills.inc()


def own_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file stands behind, in bytes; 0 when it is gone.

    Of `/proc/PID/statm`: what a fork still shares with its parent counts too, so a forked worker begins at about
    100 MiB. `private_bytes` is exact, and takes a thousand times as long.
    """
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):  # an ended process' file is gone or empty
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES
