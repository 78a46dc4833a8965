"""The sidecar's metrics, in a registry of their own so that several sidecars fit in one test process."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from marway import __version__
from marway.archive_store import FetchOutcome
from marway.wire.envelope import Answer
from marway.wire.headers import NONFINITE
from marway.wire.runtime import DeathReason, WorkerDeaths
from marway_http.loop_watch import BUCKETS_S
from marway_sidecar.handler_metrics import HandlerMetrics

__all__ = ["SidecarMetrics"]

_LOAD_OUTCOMES = ("ok", "failed", "refused", "timeout")
_GOLDEN_OUTCOMES = ("same", "different", "failed")
_ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_QUEUE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 3.5, 5, 7.5, 10, 30, 60)
_PHASE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_LOAD_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_RUNTIME_PARTS = {"version": "marway", "python": "python", "torchserve": "torchserve", "torch": "torch", "java": "java"}
"""Labels of `marway_runtime_build_info`, and the keys of `ServerInfo.versions` that they show; "" where not known."""

# Creation times of series double their number and say nothing that a restart does not.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types


class SidecarMetrics:
    """Every metric by its name in the design; durations in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.fetches = counter("marway_sidecar_archive_fetches", "Archives wanted that were not here.", ["outcome"])
        for outcome in get_args(FetchOutcome):
            self.fetches.labels(outcome)  # from 0 on: the first that is counted is an increase
        self.fetch_duration = histogram(
            "marway_sidecar_archive_fetch_duration_seconds", "Time until an archive was here.", buckets=_LOAD_BUCKETS_S
        )
        self.loads = counter(
            "marway_sidecar_model_loads", "Loads of versions into the model server.", ["model", "version", "outcome"]
        )
        self.load_duration = histogram(
            "marway_sidecar_model_load_duration_seconds",
            "Time of a load, from wanted to ready.",
            buckets=_LOAD_BUCKETS_S,
        )
        self.cold_requests = counter(
            "marway_sidecar_cold_requests",
            "Requests that found their version without a worker, and so waited for a load or were refused.",
        )
        self.load_phase_duration = histogram(
            "marway_sidecar_model_load_phase_duration_seconds",
            "Time of a load's phases: look, fetch, reserve, register with the first workers' start, warm.",
            ["phase"],
            buckets=_PHASE_BUCKETS_S,
        )
        self.golden_checks = counter(
            "marway_sidecar_golden_checks",
            "Golden examples sent after loads and for proofs: same, different, or failed when none could be sent.",
            ["model", "version", "outcome"],
        )
        self.nonfinite = counter(
            "marway_sidecar_nonfinite_answers",
            "Answers of which the handler said that they held a number that is not finite.",
            ["model", "version"],
        )
        self.dropped = counter(
            "marway_sidecar_handler_metrics_dropped",
            "Values that handlers measured and that are not shown: too many names or labels, or another kind's name.",
            ["model", "version"],
        )
        self.measured = HandlerMetrics(self.dropped)
        self.registry.register(self.measured)
        self.ready = gauge("marway_sidecar_ready", "Whether this pod takes requests.")
        self.draining = gauge("marway_sidecar_draining", "Whether this pod was told to take no more requests.")
        self.runtime_up = gauge("marway_sidecar_runtime_up", "Whether there is a model server that answers.")
        self.runtime_starts = counter(
            "marway_sidecar_runtime_starts",
            "Model servers that were found, one after the other: each after the first is a restart.",
        )
        self.registry_stale = gauge(
            "marway_sidecar_registry_stale_seconds",
            "Time since the registry answered last, while it does not; 0 while it does.",
        )
        self.workers = gauge(
            "marway_sidecar_workers", "Workers up, by how they were started.", ["model", "version", "mode"]
        )
        self.runtime_workers = gauge(
            "marway_runtime_workers",
            "All workers of the model server, by how they were started and why so.",
            ["mode", "reason"],
        )
        self.runtime_build = gauge(
            "marway_runtime_build_info", "What the model server runs on; always 1.", list(_RUNTIME_PARTS)
        )
        self.model_server = gauge(
            "marway_sidecar_model_server_info",
            "The backend of this pod, and the version of its model server while one is up; always 1.",
            ["backend", "version"],
        )
        self._backend = ""
        self.evictions = counter(
            "marway_sidecar_model_evictions",
            "Versions unloaded though nobody asked: for the memory of others, or because they were idle.",
            ["reason"],
        )
        self.batch_rows = histogram(
            "marway_sidecar_batch_rows", "Rows in one call of the model server.", buckets=_ROWS_BUCKETS
        )
        self.queue_duration = histogram(
            "marway_sidecar_queue_duration_seconds",
            "Time a request waited for a worker of its version, a load included.",
            buckets=_QUEUE_BUCKETS_S,
        )
        self.bodies = gauge(
            "marway_sidecar_body_bytes", "Bytes of large request bodies that are held, as far as they have come."
        )

        self.loop_blocked = histogram(
            "marway_sidecar_loop_blocked_seconds",
            "Time in which the event loop had no turn, looked at 50 times a second.",
            buckets=BUCKETS_S,
        )
        self.deaths = counter(
            "marway_sidecar_worker_deaths",
            "Workers that ended though nobody ended them: memory, killed, signal or exit.",
            ["model", "version", "reason"],
        )
        self._deaths_before: dict[tuple[str, str], int] | None = None
        self.build = gauge("marway_sidecar_build_info", "What runs here; always 1.", ["version", "python"])
        self.build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)

    def of_backend(self, name: str) -> None:
        """Show which backend this pod has."""
        self._backend = name
        self.model_server.clear()
        self.model_server.labels(name, "").set(1)

    def server_up(self, versions: Mapping[str, str]) -> None:
        """Count a model server that was found, and show its version and those of its parts."""
        self.runtime_starts.inc()
        self.model_server.clear()
        self.model_server.labels(self._backend, versions.get(self._backend, "")).set(1)
        parts = [versions.get(part, "") for part in _RUNTIME_PARTS.values()]
        if any(parts):  # a server of another maker has none of them
            self.runtime_build.labels(*parts).set(1)

    def server_down(self) -> None:
        """Show nothing any more of a model server that went, but of which kind it was."""
        for gauge in (self.runtime_build, self.workers, self.runtime_workers):
            gauge.clear()
        self.of_backend(self._backend)

    def count_deaths(self, told: Iterable[WorkerDeaths], title: Callable[[str], tuple[str, str]]) -> None:
        """Count the workers that died since the last time: what a runtime says first is what was before.

        ``title`` returns the name and version behind a name in the model server, empty ones when nobody knows it.
        """
        now: dict[tuple[str, str], int] = {(each.server_name, each.reason): each.count for each in told}
        if self._deaths_before is not None:
            for (name, reason), count in now.items():
                before = self._deaths_before.get((name, reason), 0)
                if count != before:  # less than before: the runtime was started again
                    self.deaths.labels(*title(name), reason).inc(count - before if count > before else count)
        self._deaths_before = now

    def count_answer(self, model: str, version: str, answer: Answer) -> None:
        """Count what a version's answer carries: the handler's metrics, and numbers that are not finite."""
        if any(name.lower() == NONFINITE for name in answer.headers):
            self.nonfinite.labels(model, version).inc()
        if answer.measured:
            self.measured.add(model, version, answer.measured)

    def forget(self, model: str, version: str) -> None:
        """Drop what is counted for a version that nobody asks for any more: labels must not pile up."""
        series = (
            *((self.loads, (outcome,)) for outcome in _LOAD_OUTCOMES),
            *((self.golden_checks, (outcome,)) for outcome in _GOLDEN_OUTCOMES),
            *((self.deaths, (reason,)) for reason in get_args(DeathReason)),
            *((self.nonfinite, ()), (self.dropped, ())),
        )
        for counter, more in series:
            with contextlib.suppress(KeyError):
                counter.remove(model, version, *more)
        self.measured.forget(model, version)
