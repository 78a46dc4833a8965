"""What the model server of a pod runs on, as a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marway.wire.runtime import RuntimeInfo

__all__ = ["RuntimeBuild"]

_PARTS = {"version": "marway", "python": "python", "torchserve": "torchserve", "torch": "torch", "java": "java"}
"""Labels, and what `runtime.json` calls these parts."""


class RuntimeBuild(Collector):
    """Says the versions of a model server's parts while it is up; what is not known is empty.

    Args:
        info: Returns what the runtime says; None while no model server is up.
    """

    def __init__(self, info: Callable[[], RuntimeInfo | None]) -> None:
        self._info = info

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "marway_runtime_build_info", "What the model server runs on; always 1.", labels=list(_PARTS)
        )
        if (info := self._info()) is not None:
            family.add_metric([info.versions.get(part, "") for part in _PARTS.values()], 1.0)
        yield family
