"""How a model's versions did: latency in stretches of time, quality, and what failed."""

from datetime import timedelta
from pathlib import Path

from marway.records import utc_now
from marway.registry import Registry
from marway_observations.searching.figures import figures
from marway_observations.searching.questions import Figures
from support.observations import feedback, observation, write_feedback, write_observations
from support.registry import publish
from support.registry_fixtures import directory, registry, store_url

__all__ = ["directory", "registry", "store_url"]


def test_figures(registry: Registry, tmp_path: Path) -> None:
    """Each version by itself, copies and callers' own mistakes left out; failures by their code, the newest known."""
    publish(registry, tmp_path, "intent", "1.0")
    publish(registry, tmp_path, "intent", "1.1", label=None)
    now = utc_now()
    ago = [now - timedelta(minutes=minutes) for minutes in (1, 2, 90)]
    failed = {"outcome": "model_error", "error": "model_error", "status": "500", "duration_s": 0.5}
    rows = [
        observation(at=ago[2], version="1.0", duration_s=0.004),
        observation(at=ago[1], version="1.0", duration_s=0.006, rate=0.5),
        observation(at=ago[1], version="1.0", request_id="r-1", **failed),
        observation(at=ago[0], version="1.0", request_id="r-2", **failed),
        observation(at=ago[0], version="1.1", duration_s=0.002),
        observation(at=ago[0], version="1.1", role="shadow", **failed),
        observation(at=ago[0], version="1.1", outcome="client_error", error="invalid_input", status="400"),
    ]
    write_observations(registry.store, "intent", rows)
    told = [
        feedback(correct=right, prediction_id=row["prediction_id"], at=now)
        for row, right in ((rows[0], True), (rows[1], False))
    ]
    write_feedback(registry.store, told)
    found = figures(registry, registry.store, Figures(model="INTENT", since="2h"))
    assert (found.model, found.bucket_s) == ("intent", 300.0)
    by_version: dict[str, list[tuple[int, int]]] = {}
    for point in found.latency:
        assert point.at.timestamp() % 300 == 0
        by_version.setdefault(point.version, []).append((point.requests, point.errors))
    assert by_version["1.0"][0] == (1, 0)
    assert sum(requests for requests, _ in by_version["1.0"]) == 5  # one was kept of two
    assert sum(errors for _, errors in by_version["1.0"]) == 2
    assert sum(requests for requests, _ in by_version["1.1"]) == 2
    assert found.latency[0].p50_s == 0.004
    (error,) = found.errors
    assert (error.version, error.error, error.kept, error.request_id) == ("1.0", "model_error", 2, "r-2")
    (quality,) = found.quality
    assert (quality.version, quality.metric, quality.value, quality.known) == ("1.0", "accuracy", 0.5, 2)
    assert figures(registry, registry.store, Figures(model="intent", since="30s")).latency == ()
