"""What a gateway knows of its pods and of the registry, read when somebody asks for metrics: requests pay nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, get_args

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marway.resolve import RegistryReader, Resolver
from marway_gateway.placement.pod import PodState
from marway_gateway.placement.podset import PodSet

__all__ = ["LABELS_MAX", "LABELS_WITHIN_S", "Gauges"]

LABELS_MAX: Final = 2000
"""Most labels that are shown, those of the models used last: a registry may have far more than Prometheus likes."""
LABELS_WITHIN_S: Final = 60.0
"""Labels of a model that was not asked for so long are not shown, in seconds: they may have moved unseen."""


class Gauges(Collector):
    """The gauges of a gateway.

    Args:
        pods: Its pods.
        reader: Says whether the registry answers.
        resolver: Knows the labels of models in use.
        clock: Monotonic seconds, the same as theirs.
    """

    def __init__(self, pods: PodSet, reader: RegistryReader, resolver: Resolver, *, clock: Callable[[], float]) -> None:
        self._pods = pods
        self._reader = reader
        self._resolver = resolver
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges as they are now."""
        now = self._clock()
        counted: Counter[PodState] = Counter(pod.state(now) for pod in self._pods.pods)
        pods = GaugeMetricFamily("marway_gateway_pods", "Pods, by whether they get requests.", labels=("state",))
        for state in get_args(PodState):
            pods.add_metric([state], float(counted[state]))
        yield pods
        yield GaugeMetricFamily(
            "marway_gateway_registry_stale_seconds",
            "Time since the registry answered last, while it does not; 0 while it does.",
            value=self._reader.stale_s(),
        )
        labels = GaugeMetricFamily(
            "marway_gateway_label_info",
            "Labels of models in use, by the version that they point at; always 1.",
            labels=("model", "label", "version"),
        )
        for label in self._resolver.labels(within_s=LABELS_WITHIN_S, limit=LABELS_MAX):
            labels.add_metric(label, 1.0)
        yield labels
