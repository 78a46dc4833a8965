"""`context.metrics` in a worker."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from marway.wire.measurements import MEASUREMENTS_MAX, Measurement
from marway.worker.calls import declare_metrics

pytest.importorskip("ts")

from ts.metrics import caching_metric
from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.metrics.metric_type_enum import MetricTypes

from marway_runtime.worker import custom_metrics

# TorchServe leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*metrics.yaml:pytest.PytestUnraisableExceptionWarning")

OWN = """
dimensions:
  - &kind "kind"
model_metrics:
  gauge:
    - {name: Waiting, unit: Count, dimensions: [*kind]}
"""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCacheYamlImpl]:
    """A worker's metrics, as TorchServe makes them."""
    monkeypatch.setattr(caching_metric.CachingMetric, "add_or_update", caching_metric.CachingMetric.add_or_update)
    for name, method in inspect.getmembers(MetricCacheAbstract, inspect.isfunction):
        if name.startswith("add_") and method.__defaults__:
            # The list that is the default of `dimensions` keeps the name of the first model that a process measures.
            fresh = tuple([] if isinstance(each, list) else each for each in method.__defaults__)
            monkeypatch.setattr(method, "__defaults__", fresh)
    custom_metrics.install()
    found = find_spec("ts")
    assert found is not None
    assert found.origin is not None
    made = MetricsCacheYamlImpl(config_file_path=str(Path(found.origin).parent / "configs" / "metrics.yaml"))
    made.initialize_cache()
    made.model_name = "mv_X"
    made.request_ids = {0: "a"}
    custom_metrics.take()
    yield made
    custom_metrics.take()


def test_all_ways_to_measure_are_kept(cache: MetricsCacheYamlImpl) -> None:
    """What every `add_*` of TorchServe takes is there once, counters added up, with the dimensions TorchServe adds."""
    cache.add_counter("Asked", 1)
    cache.add_counter("Asked", 2)
    cache.add_time("Took", 5.5)
    cache.add_size("Size", 7, unit="kB")
    cache.add_percent("Full", 50, dimensions=[Dimension("disk", "a")])
    cache.add_error("Failed", 1)
    cache.add_metric("Words", 3, unit="Count", metric_type=MetricTypes.HISTOGRAM)
    cache.add_metric("Words", 4, unit="Count", metric_type=MetricTypes.HISTOGRAM)
    own = (("ModelName", "mv_X"), ("Level", "Model"))
    measured = custom_metrics.take()
    assert [(each.kind, each.name, each.value) for each in measured] == [
        ("counter", "Asked", 3),
        ("gauge", "Took", 5.5),
        ("gauge", "Size", 7),
        ("gauge", "Full", 50),
        ("counter", "Failed", 1),
        ("histogram", "Words", 3),
        ("histogram", "Words", 4),
    ]
    assert measured[0].dimensions == own
    assert measured[3].dimensions == (("disk", "a"), *own)
    assert measured[4].dimensions[-1] == ("Level", "Error")
    assert custom_metrics.take() == []


def test_wrong_values_are_refused_as_torchserve_refuses_them(cache: MetricsCacheYamlImpl) -> None:
    """A counter does not go down, and nothing is infinite: the handler goes on, and the log says so."""
    cache.add_counter("Asked", -1)
    cache.add_time("Took", float("nan"))
    assert custom_metrics.take() == []


def test_a_call_brings_a_bounded_number(cache: MetricsCacheYamlImpl) -> None:
    """However much a call measures, so many values go with its answer; what is there is still counted up."""
    for index in range(MEASUREMENTS_MAX + 10):
        cache.add_counter(f"n{index}", 1)
    cache.add_counter("n0", 1)
    measured = custom_metrics.take()
    assert (len(measured), measured[0].value) == (MEASUREMENTS_MAX, 2)


def test_an_archive_declares_its_own_metrics(cache: MetricsCacheYamlImpl, tmp_path: Path) -> None:
    """`metrics.yaml` in an archive names what its handler gets by name."""
    declare_metrics(cache, str(tmp_path))
    (tmp_path / "metrics.yaml").write_text(OWN)
    declare_metrics(cache, str(tmp_path))
    cache.get_metric("Waiting", MetricTypes.GAUGE).add_or_update(4, ["urgent"])
    assert custom_metrics.take() == [Measurement("gauge", "Waiting", "Count", (("kind", "urgent"),), 4.0)]
