"""What handlers measure, as metrics of the sidecar."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from marway.wire.envelope import Answer
from marway.wire.measurements import Kind, Measurement
from marway_sidecar.handler_metrics import NAMES_MAX, SERIES_OF_VERSION_MAX
from marway_sidecar.metrics import SidecarMetrics

NO_DIMENSIONS: tuple[tuple[str, str], ...] = ()
DIMENSIONS = (("ModelName", "mv_X"), ("Level", "Model"))


def said(metrics: SidecarMetrics, version: str, *measured: Measurement) -> None:
    metrics.count_answer("intent", version, Answer(200, b"", "json", measured=measured))


def samples(metrics: SidecarMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return all samples that a Prometheus would read, with their labels but the model's."""
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(pair for pair in sorted(sample.labels.items()) if pair[0] != "model")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_kinds_come_together_as_prometheus_has_them() -> None:
    """Counters add up, of a gauge the last value counts, and a histogram's values fall into buckets."""
    metrics = SidecarMetrics()
    for value in (1.0, 2.0):
        said(
            metrics,
            "1",
            Measurement("counter", "Asked", "Count", DIMENSIONS, value),
            Measurement("gauge", "Left-over", "ms", DIMENSIONS, value),
            Measurement("histogram", "Size", "MB", (("kind", "a"),), value),
        )
    found = samples(metrics)
    level = (("Level", "Model"), ("version", "1"))
    assert found["marway_handler_Asked_total", level] == 3
    assert found["marway_handler_Left_over", level] == 2
    of_size = (("kind", "a"), ("version", "1"))
    assert (found["marway_handler_Size_sum", of_size], found["marway_handler_Size_count", of_size]) == (3, 2)
    buckets = {
        edge: found["marway_handler_Size_bucket", (("kind", "a"), ("le", edge), ("version", "1"))]
        for edge in ("0.75", "1.0", "2.5")
    }
    assert buckets == {"0.75": 0, "1.0": 1, "2.5": 2}


def test_fault_a_handler_measures_without_end() -> None:
    """What would be too much is dropped and counted, and what is there goes on."""
    metrics = SidecarMetrics()
    for index in range(SERIES_OF_VERSION_MAX + 5):
        said(metrics, "1", Measurement("counter", "c", "", (("user", str(index)),), 1))
    for index in range(NAMES_MAX + 5):
        said(metrics, f"v{index}", Measurement("counter", f"n{index}", "", NO_DIMENSIONS, 1))
    wrong: tuple[tuple[Kind, str, tuple[tuple[str, str], ...]], ...] = (
        ("gauge", "c", NO_DIMENSIONS),  # a counter of another version
        ("counter", "x", (("le", "1"),)),
        ("counter", "x", (("version", "9"),)),
        ("counter", "x", tuple((f"l{index}", "") for index in range(20))),
    )
    for kind, name, dimensions in wrong:
        said(metrics, "wrong", Measurement(kind, name, "", dimensions, 1))
    said(metrics, "1", Measurement("counter", "c", "", (("user", "0"),), 1))
    found = samples(metrics)
    assert sum(name == "marway_handler_c_total" for name, _ in found) == SERIES_OF_VERSION_MAX
    assert found["marway_handler_c_total", (("user", "0"), ("version", "1"))] == 2
    assert found["marway_sidecar_handler_metrics_dropped_total", (("version", "1"),)] == 5
    assert found["marway_sidecar_handler_metrics_dropped_total", (("version", "wrong"),)] == 4
    assert sum(name.startswith("marway_handler_n") for name, _ in found) == NAMES_MAX - 1


def test_a_version_that_is_forgotten_leaves_nothing() -> None:
    """Series go with the version that made them, and make room for others, of another kind too."""
    metrics = SidecarMetrics()
    said(metrics, "1", Measurement("counter", "c", "", NO_DIMENSIONS, 1))
    said(metrics, "2", Measurement("counter", "c", "", NO_DIMENSIONS, 1))
    metrics.forget("intent", "1")
    assert [labels for name, labels in samples(metrics) if name.startswith("marway_handler_")] == [(("version", "2"),)]
    metrics.forget("intent", "2")
    said(metrics, "3", Measurement("gauge", "c", "", NO_DIMENSIONS, 7))
    assert samples(metrics)["marway_handler_c", (("version", "3"),)] == 7
