"""The runtime's metrics, in a registry of their own."""

from __future__ import annotations

import platform
from collections import Counter as Tally
from collections.abc import Iterable
from typing import get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from marway import __version__
from marway.wire.workers import DeathReason
from marway_runtime.workers import Worker

__all__ = ["RuntimeMetrics"]

# Creation times of series double their number and say nothing that a restart does not.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types


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
            "Starts after the first, of the engine and the fork server, by why: ended, frozen or asked.",
            ["part", "reason"],
            registry=self.registry,
        )
        self.deaths = Counter(
            "marway_runtime_worker_deaths",
            "Workers that ended though nobody ended them, by why: memory, killed, signal or exit.",
            ["reason"],
            registry=self.registry,
        )
        for death in get_args(DeathReason):
            self.deaths.labels(death)
        self.build = Gauge(
            "marway_runtime_build_info", "What runs here; always 1.", ["version", "python"], registry=self.registry
        )
        self.build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        self.up = Gauge(
            "marway_runtime_up",
            "Whether a part answers: the engine by its name, forkserver.",
            ["part"],
            registry=self.registry,
        )

    def exposed(self, workers: Iterable[Worker], *, engine: tuple[str, bool], forkserver: bool) -> bytes:
        """Return all metrics in Prometheus' text format, with these workers counted."""
        self._workers.clear()
        self._workers.labels("forked", "").set(0)
        for (mode, reason), count in Tally((worker.mode, worker.reason) for worker in workers).items():
            self._workers.labels(mode, reason).set(count)
        name, answers = engine
        self.up.labels(name).set(answers)
        self.up.labels("forkserver").set(forkserver)
        return generate_latest(self.registry)
