"""What handlers measure by `context.metrics`, held for the answer that carries it to the sidecar.

TorchServe's own workers print each value for the front end to parse and show at a port of its own. Here a worker adds
up what a call measured, so that a handler may measure much and send little.
"""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any, Final

import yaml
from ts.metrics import metric_cache_yaml_impl
from ts.metrics.caching_metric import CachingMetric
from ts.metrics.metric_type_enum import MetricTypes

from marway.wire.measurements import MEASUREMENTS_MAX, Kind, Measurement

__all__ = ["install", "take"]

logger = logging.getLogger(__name__)

_TEXT_MAX: Final = 128
_KINDS: Final[dict[MetricTypes, Kind]] = {
    MetricTypes.COUNTER: "counter",
    MetricTypes.GAUGE: "gauge",
    MetricTypes.HISTOGRAM: "histogram",
}

_Key = tuple[Kind, str, str, tuple[tuple[str, str], ...]]


class _Values:
    """Values since they were last taken: counters added up, the last of each gauge, every value of a histogram."""

    def __init__(self) -> None:
        self._values: dict[_Key, list[float]] = {}
        self._number = 0
        self._lost = False

    def add(self, key: _Key, value: float) -> None:
        values = self._values.get(key)
        if values and key[0] != "histogram":
            values[0] = value + (values[0] if key[0] == "counter" else 0.0)
            return
        if self._number >= MEASUREMENTS_MAX:
            if not self._lost:
                self._lost = True
                logger.warning("A call measured more than %d values: the others are lost.", MEASUREMENTS_MAX)
            return
        self._number += 1
        self._values.setdefault(key, []).append(value)

    def take(self) -> list[Measurement]:
        taken, self._values, self._number = self._values, {}, 0
        return [Measurement(*key, value) for key, values in taken.items() for value in values]


_measured: Final = _Values()


def install() -> None:
    """Have every metric keep its values here, and the file that declares them read by libyaml.

    Every worker reads it before it loads its handler; PyYAML's own parser takes 4 ms for TorchServe's, and in a process
    that was just forked, whose memory is still shared, 20 ms and 1 MiB.
    """
    CachingMetric.add_or_update = _add_or_update
    metric_cache_yaml_impl.yaml = SimpleNamespace(safe_load=_safe_load, YAMLError=yaml.YAMLError)


def take() -> list[Measurement]:
    """Return what was measured since this was called last."""
    return _measured.take()


def _safe_load(stream: Any) -> Any:
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    return yaml.load(stream, loader)  # noqa: S506 - both are safe loaders


def _add_or_update(metric: Any, value: float, dimension_values: list[Any] | None = None, request_id: str = "") -> None:
    """Stand in for `CachingMetric.add_or_update`, with its checks."""
    try:
        metric._validate_and_get_dimensions(dimension_values or [])
        metric._validate_metric_value(value)
        number = float(value)
        if not math.isfinite(number):
            raise ValueError("it is not finite")
    except ValueError as exc:
        logger.error("Failed to update the metric %s with the value %r: %s", metric.metric_name, value, exc)
        return
    pairs = zip(metric.dimension_names, dimension_values or [], strict=True)
    dimensions = tuple((str(name)[:_TEXT_MAX], str(each)[:_TEXT_MAX]) for name, each in pairs)
    kind = _KINDS[metric.metric_type]
    _measured.add((kind, str(metric.metric_name)[:_TEXT_MAX], str(metric.unit)[:_TEXT_MAX], dimensions), number)
