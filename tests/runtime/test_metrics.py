"""What the runtime tells of itself."""

from __future__ import annotations

from marway.wire.environments import EnvironmentState
from marway.wire.runtime import KeptWeights
from marway_runtime.metrics import RuntimeMetrics


def test_environments_and_weights_are_counted_by_who_uses_them() -> None:
    """Each look counts what is there now: environments with a version in them or none, weights with workers or none."""
    metrics = RuntimeMetrics()
    parked = KeptWeights(pid=1, server_name="b", size_bytes=7, workers=0)
    used = EnvironmentState(digest="x", size_bytes=10, used_by=("a",))
    unused = EnvironmentState(digest="y", size_bytes=3)
    metrics.exposed((), [parked], [used, unused], engine=("native", True), forkserver=True)
    metrics.built("ok", 2.5)
    text = metrics.exposed((), [parked], [unused], engine=("native", True), forkserver=True).decode()
    assert 'marway_runtime_environments_bytes{state="used"} 0.0' in text
    assert 'marway_runtime_environments_bytes{state="unused"} 3.0' in text
    assert 'marway_runtime_weights_bytes{state="parked"} 7.0' in text
    assert 'marway_runtime_environment_build_duration_seconds_sum{outcome="ok"} 2.5' in text
