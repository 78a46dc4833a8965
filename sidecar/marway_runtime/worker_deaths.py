"""Counts the workers that ended though nobody ended them, by what they served and by why."""

from __future__ import annotations

import signal
from collections import Counter, deque
from typing import Final

from marway.wire.runtime import DeathReason, WorkerDeaths
from marway_runtime.metrics import RuntimeMetrics

__all__ = ["Deaths"]

_COUNTS_MAX: Final = 1000
"""Most counts, of which the latest stay: a runtime sees more versions come and go than it can have at a time."""
_KILLED_MAX: Final = 256


class Deaths:
    """What is told to the sidecar, since the runtime's start.

    A worker that TorchServe ends, for an unload, fewer workers or a time-out, has not died: its shim is gone first. Of
    plain workers, which are Java's own children, only those are known that the memory guard kills.

    Args:
        metrics: Where they are counted, too.
    """

    def __init__(self, metrics: RuntimeMetrics) -> None:
        self._metrics = metrics
        self._counts: Counter[tuple[str, DeathReason]] = Counter()
        self._killed: deque[int] = deque(maxlen=_KILLED_MAX)

    def killed(self, pid: int, server_name: str, *, forked: bool) -> None:
        """Count a worker that is killed for its memory.

        Args:
            pid: The worker's.
            server_name: What it served, by its name in TorchServe; empty when it was not told yet.
            forked: Whether the fork server will tell of its end as well.
        """
        if forked:
            self._killed.append(pid)
        self._count(server_name, "memory")

    def ended(self, pid: int, status: int, server_name: str) -> None:
        """Count a forked worker that ended by itself, as the fork server says.

        Args:
            pid: The worker's.
            status: Its exit status, or minus the number of the signal that ended it.
            server_name: What it served; empty when it was not told yet.
        """
        if pid in self._killed:
            self._killed.remove(pid)
        elif status == -signal.SIGKILL:
            self._count(server_name, "killed")
        else:
            self._count(server_name, "signal" if status < 0 else "exit")

    def counts(self) -> tuple[WorkerDeaths, ...]:
        """Return the counts, by name and reason."""
        return tuple(
            WorkerDeaths(server_name=name, reason=reason, count=count) for (name, reason), count in self._counts.items()
        )

    def _count(self, server_name: str, reason: DeathReason) -> None:
        key = (server_name, reason)
        self._counts[key] = self._counts.pop(key, 0) + 1  # the latest is the last
        while len(self._counts) > _COUNTS_MAX:
            del self._counts[next(iter(self._counts))]
        self._metrics.deaths.labels(reason).inc()
