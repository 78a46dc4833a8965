"""What handlers measure (`context.metrics` of TorchServe), as metrics of the sidecar, bounded in number."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from prometheus_client import Counter
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from marway.wire.measurements import Kind, Measurement

__all__ = ["NAMES_MAX", "PREFIX", "SERIES_MAX", "SERIES_OF_VERSION_MAX", "HandlerMetrics"]

PREFIX: Final = "marway_handler_"
NAMES_MAX: Final = 200
"""Most names of all versions together."""
SERIES_MAX: Final = 2000
"""Most series of all versions together; a histogram is one."""
SERIES_OF_VERSION_MAX: Final = 200
_LABELS_MAX: Final = 10
_VALUE_MAX: Final = 128
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Those of TorchServe's own histograms."""
_NOT_OF_NAMES: Final = re.compile(r"[^a-zA-Z0-9_]")
_OURS: Final = frozenset({"model", "version"})
_KNOWN_BY_US: Final = "ModelName"
"""A dimension that TorchServe adds to every metric, and that the label `model` is."""

_Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Series:
    """Values of one name and one set of labels: their sum or the last, and for a histogram how many are in each."""

    value: float = 0.0
    buckets: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Family:
    kind: Kind
    unit: str
    series: dict[_Labels, _Series] = field(default_factory=dict)


class HandlerMetrics(Collector):
    """Collects what handlers measured.

    A value whose name would be one too many, whose name another version uses for another kind of metric, or whose
    labels would make too many series is ``dropped``, which counts by model and version.
    """

    def __init__(self, dropped: Counter) -> None:
        self._dropped = dropped
        self._families: dict[str, _Family] = {}
        self._owned: dict[tuple[str, str], set[tuple[str, _Labels]]] = {}
        self._number = 0

    def add(self, model: str, version: str, measured: Sequence[Measurement]) -> None:
        """Take in what a version's handler measured."""
        for each in measured:
            if not self._take_in(model, version, each):
                self._dropped.labels(model, version).inc()

    def forget(self, model: str, version: str) -> None:
        """Drop a version's series: labels must not pile up."""
        for name, labels in self._owned.pop((model, version), ()):
            family = self._families[name]
            del family.series[labels]
            self._number -= 1
            if not family.series:
                del self._families[name]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for name, family in self._families.items():
            yield _exposed(name, family)

    def _take_in(self, model: str, version: str, each: Measurement) -> bool:
        name = _plain(each.name)
        labels = _labels(model, version, each.dimensions)
        if not name or labels is None or (each.kind == "counter" and each.value < 0):
            return False
        name = PREFIX + name
        family = self._families.get(name)
        if family is not None and family.kind != each.kind:
            return False
        series = family.series.get(labels) if family is not None else None
        if series is None:
            owned = self._owned.setdefault((model, version), set())
            if len(owned) >= SERIES_OF_VERSION_MAX or self._number >= SERIES_MAX:
                return False
            if family is None:
                if len(self._families) >= NAMES_MAX:
                    return False
                family = self._families[name] = _Family(each.kind, each.unit)
            series = family.series[labels] = _Series()
            if each.kind == "histogram":
                series.buckets = [0] * (len(_BUCKETS) + 1)
            owned.add((name, labels))
            self._number += 1
        if each.kind == "gauge":
            series.value = each.value
        else:
            series.value += each.value
        if each.kind == "histogram":
            series.buckets[bisect_left(_BUCKETS, each.value)] += 1
        return True


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    """Return a name as Prometheus takes it; "" for none."""
    return _NOT_OF_NAMES.sub("_", name).removesuffix("_total")


@lru_cache(maxsize=4096)
def _labels(model: str, version: str, dimensions: _Labels) -> _Labels | None:
    """Return the labels of a series in one order; None where they cannot be labels."""
    labels = {"model": model, "version": version}
    for name, value in dimensions:
        if name == _KNOWN_BY_US:
            continue
        plain = _plain(name)
        if not plain or plain[0].isdigit() or plain.startswith("__") or plain in _OURS | {"le"}:
            return None
        labels[plain] = value[:_VALUE_MAX]
    return tuple(labels.items()) if len(labels) <= _LABELS_MAX else None


def _exposed(name: str, family: _Family) -> Metric:
    help_text = f"Measured by handlers, in {family.unit}." if family.unit else "Measured by handlers."
    metric = Metric(name, help_text, family.kind)
    for labels, series in list(family.series.items()):
        sample_labels = dict(labels)
        if family.kind == "counter":
            metric.add_sample(f"{name}_total", sample_labels, series.value)
        elif family.kind == "gauge":
            metric.add_sample(name, sample_labels, series.value)
        else:
            reached = 0
            for edge, count in zip((*map(str, _BUCKETS), "+Inf"), series.buckets, strict=True):
                reached += count
                metric.add_sample(f"{name}_bucket", {**sample_labels, "le": edge}, reached)
            metric.add_sample(f"{name}_count", sample_labels, reached)
            metric.add_sample(f"{name}_sum", sample_labels, series.value)
    return metric
