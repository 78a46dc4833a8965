"""The runtime's metrics, in a registry of their own."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from marway_runtime.workers import Worker

__all__ = ["RuntimeMetrics"]


class RuntimeMetrics:
    """Every metric of the runtime, as `GET /metrics` of its socket gives them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._workers = Gauge(
            "marway_runtime_workers",
            "Worker processes by how they were started, and why not forked.",
            ["mode", "reason"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "marway_runtime_restarts",
            "Starts after the first, of torchserve and forkserver, by why: ended, frozen or asked.",
            ["part", "reason"],
            registry=self.registry,
        )
        self.kills = Counter(
            "marway_runtime_worker_memory_kills",
            "Workers that were killed because they took more memory than they may.",
            registry=self.registry,
        )
        self.up = Gauge(
            "marway_runtime_up", "Whether a part answers: torchserve, forkserver.", ["part"], registry=self.registry
        )

    def exposed(self, workers: Iterable[Worker], *, torchserve: bool, forkserver: bool) -> bytes:
        """Return all metrics in Prometheus' text format, with these workers counted."""
        self._workers.clear()
        self._workers.labels("forked", "").set(0)
        for (mode, reason), count in Tally((worker.mode, worker.reason) for worker in workers).items():
            self._workers.labels(mode, reason).set(count)
        self.up.labels("torchserve").set(torchserve)
        self.up.labels("forkserver").set(forkserver)
        return generate_latest(self.registry)
