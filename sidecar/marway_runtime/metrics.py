"""The runtime's metrics, in a registry of their own, and the workers that ended though nobody ended them."""

from __future__ import annotations

import platform
import signal
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterable
from typing import Final, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from marway import __version__
from marway.wire.environments import EnvironmentState
from marway.wire.runtime import DeathReason, KeptWeights, WorkerDeaths
from marway_runtime.environments.store import BuildOutcome
from marway_runtime.workers import Worker

__all__ = ["Deaths", "RuntimeMetrics"]

_COUNTS_MAX: Final = 1000
"""Most counts, of which the latest stay: a runtime sees more versions come and go than it can have at a time."""
_KILLED_MAX: Final = 256
_BUILD_BUCKETS_S: Final = (0.5, 1, 2, 5, 10, 30, 60, 300, 900)

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
        self._weights = Gauge(
            "marway_runtime_weights_bytes",
            "Memory that workers of one version share: shared, of versions with workers; parked, without.",
            ["state"],
            registry=self.registry,
        )
        self._environments = Gauge(
            "marway_runtime_environments_bytes",
            "What environments take on the disk: used, by versions that are loaded; unused, kept while there is room.",
            ["state"],
            registry=self.registry,
        )
        self._builds = Histogram(
            "marway_runtime_environment_build_duration_seconds",
            "Building environments, by what came of it: ok, failed or no_room.",
            ["outcome"],
            buckets=_BUILD_BUCKETS_S,
            registry=self.registry,
        )
        for outcome in get_args(BuildOutcome):
            self._builds.labels(outcome)
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
        build = Gauge(
            "marway_runtime_build_info", "What runs here; always 1.", ["version", "python"], registry=self.registry
        )
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        self.up = Gauge(
            "marway_runtime_up",
            "Whether a part answers: the engine by its name, forkserver.",
            ["part"],
            registry=self.registry,
        )

    def built(self, outcome: BuildOutcome, seconds: float) -> None:
        """Note that an environment was built, or not."""
        self._builds.labels(outcome).observe(seconds)

    def exposed(
        self,
        workers: Iterable[Worker],
        weights: Iterable[KeptWeights],
        environments: Iterable[EnvironmentState],
        *,
        engine: tuple[str, bool],
        forkserver: bool,
    ) -> bytes:
        """Return all metrics in Prometheus' text format, with these workers, weights and environments counted."""
        self._workers.clear()
        self._workers.labels("forked", "").set(0)
        for (mode, reason), count in Tally((worker.mode, worker.reason) for worker in workers).items():
            self._workers.labels(mode, reason).set(count)
        kept = Tally(shared=0, parked=0)
        for each in weights:
            kept["shared" if each.workers else "parked"] += each.size_bytes
        for state, size_bytes in kept.items():
            self._weights.labels(state).set(size_bytes)
        taken = Tally(used=0, unused=0)
        for environment in environments:
            taken["used" if environment.used_by else "unused"] += environment.size_bytes
        for state, size_bytes in taken.items():
            self._environments.labels(state).set(size_bytes)
        name, answers = engine
        self.up.labels(name).set(answers)
        self.up.labels("forkserver").set(forkserver)
        return generate_latest(self.registry)


class Deaths:
    """The workers that died since the runtime's start, by what they served and by why.

    A worker that TorchServe ends, for an unload, fewer workers or a time-out, has not died: its shim is gone first. Of
    plain workers, which are Java's own children, only those are known that the memory guard kills.
    """

    def __init__(self, metrics: RuntimeMetrics) -> None:
        self._metrics = metrics
        self._counts: Tally[tuple[str, DeathReason]] = Tally()
        self._killed: deque[int] = deque(maxlen=_KILLED_MAX)

    def killed(self, pid: int, server_name: str, *, forked: bool) -> None:
        """Count a worker that is killed for its memory; of a forked one's end the fork server will tell as well.

        ``server_name`` is what it served, by its name in TorchServe; empty when it was not told yet.
        """
        if forked:
            self._killed.append(pid)
        self._count(server_name, "memory")

    def ended(self, pid: int, status: int, server_name: str) -> None:
        """Count a forked worker that ended by itself, with this exit status, or minus the number of a signal."""
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
