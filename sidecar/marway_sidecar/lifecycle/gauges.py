"""The gauges of the pool, read when somebody asks for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marway.wire.pods import ModelStatus, State
from marway.wire.runtime import DeviceMemory

__all__ = ["PoolGauges"]


class PoolGauges(Collector):
    """Shows the pool as it is: all versions, the bytes that they take, and may take (None: no limit), and the GPUs."""

    def __init__(
        self,
        statuses: Callable[[], Sequence[ModelStatus]],
        memory: Callable[[], tuple[int, int | None]],
        devices: Callable[[], Sequence[DeviceMemory]],
    ) -> None:
        self._statuses = statuses
        self._memory = memory
        self._devices = devices

    def collect(self) -> Iterator[Metric]:
        statuses = self._statuses()
        states = Counter(dict.fromkeys(get_args(State), 0))
        tiers = Counter(reserved=0, workers=0, registered=0, parked=0)
        used = GaugeMetricFamily(
            "marway_sidecar_model_last_used_timestamp_seconds",
            "When a version that is loaded here was asked last, in Unix time; 0 for never.",
            labels=("model", "version"),
        )
        weights = GaugeMetricFamily(
            "marway_sidecar_weights_bytes",
            "Memory that the workers of a version share, kept also while it is parked.",
            labels=("model", "version"),
        )
        copied = GaugeMetricFamily(
            "marway_sidecar_worker_copied_bytes",
            "Memory that the workers of a version shared until they wrote to it, all of them together.",
            labels=("model", "version"),
        )
        sequences = GaugeMetricFamily(
            "marway_sidecar_sequences",
            "Sequences of requests whose state a version's worker keeps.",
            labels=("model", "version"),
        )
        for each in statuses:
            states[each.state] += 1
            tiers[_tier(each)] += each.memory_bytes
            if each.state == "ready":
                at = each.last_used_at
                used.add_metric([each.name, each.version], at.timestamp() if at is not None else 0.0)
            if each.weights_bytes:
                weights.add_metric([each.name, each.version], each.weights_bytes)
                copied.add_metric([each.name, each.version], each.copied_bytes)
            if each.sequences:
                sequences.add_metric([each.name, each.version], each.sequences)
        yield from (used, weights, copied, sequences)
        yield _by("marway_sidecar_models", "Versions by state.", "state", states)
        yield _by(
            "marway_sidecar_memory_bytes",
            "Memory in the budget: of versions with workers up, registered and parked ones without, loads under way.",
            "tier",
            tiers,
        )
        yield GaugeMetricFamily(
            "marway_sidecar_memory_budget_bytes",
            "Memory that versions may take together; 0 means that no limit is known.",
            value=self._memory()[1] or 0,
        )
        yield from self._of_devices()
        yield GaugeMetricFamily(
            "marway_sidecar_requests_in_flight",
            "Calls in the model server, those whose callers have left included.",
            value=sum(each.requests_in_flight for each in statuses),
        )

    def _of_devices(self) -> Iterator[Metric]:
        devices = self._devices()
        for name, text, figure in (
            ("bytes", "Memory of a GPU.", "total_bytes"),
            ("used_bytes", "Memory of a GPU that is in use, by whomever.", "used_bytes"),
            ("workers", "Workers of this pod that were given a GPU.", "workers"),
        ):
            family = GaugeMetricFamily(f"marway_sidecar_device_{name}", text, labels=("device",))
            for each in devices:
                if (value := getattr(each, figure)) is not None:
                    family.add_metric([str(each.index)], value)
            yield family


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _tier(status: ModelStatus) -> str:
    if status.state not in ("ready", "draining"):
        return "reserved"
    if status.workers:
        return "workers"
    return "parked" if status.parked else "registered"
