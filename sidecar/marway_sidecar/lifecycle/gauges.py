"""The gauges of the pool, read when somebody asks for metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marway.wire.pods import State
from marway_sidecar.lifecycle.entry import Entry
from marway_sidecar.metrics import SidecarMetrics

__all__ = ["bind"]

_STATES: Final[tuple[State, ...]] = ("absent", "fetching", "loading", "ready", "draining", "failed")
_TIERS: Final = ("reserved", "workers", "registered")


def bind(
    metrics: SidecarMetrics,
    *,
    entries: Callable[[], Sequence[tuple[Entry, int]]],
    budget: Callable[[], int | None],
    in_flight: Callable[[], int],
) -> None:
    """Have the gauges read the pool.

    Args:
        metrics: Whose gauges.
        entries: Returns every version with the bytes that it counts for.
        budget: Returns the bytes that all may take; None when no limit is known.
        in_flight: Returns how many calls are in the model server.
    """

    def count(state: State) -> float:
        return float(sum(entry.state == state for entry, _ in entries()))

    def memory(tier: str) -> float:
        return float(sum(size for entry, size in entries() if _tier(entry) == tier))

    for state in _STATES:
        metrics.models.labels(state).set_function(partial(count, state))
    for tier in _TIERS:
        metrics.memory.labels(tier).set_function(partial(memory, tier))
    metrics.memory_budget.set_function(lambda: float(budget() or 0))
    metrics.in_flight.set_function(lambda: float(in_flight()))
    metrics.registry.register(_LastUsed(entries))


class _LastUsed(Collector):
    """When each version that is loaded was asked last; its labels come and go with the versions."""

    def __init__(self, entries: Callable[[], Sequence[tuple[Entry, int]]]) -> None:
        self._entries = entries

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "marway_sidecar_model_last_used_timestamp_seconds",
            "When a version that is loaded here was asked last, in Unix time; 0 for never.",
            labels=("model", "version"),
        )
        for entry, _ in self._entries():
            if entry.state == "ready":
                used = entry.last_used_at
                family.add_metric([entry.record.name, entry.record.version], used.timestamp() if used else 0.0)
        yield family


def _tier(entry: Entry) -> str:
    """Return the tier that a version's memory counts for."""
    if entry.state not in ("ready", "draining"):
        return "reserved"
    return "workers" if entry.workers else "registered"
