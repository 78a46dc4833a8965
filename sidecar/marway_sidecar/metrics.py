"""The sidecar's metrics, in a registry of their own so that several sidecars fit in one test process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["SidecarMetrics"]

_LOAD_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class SidecarMetrics:
    """Every metric by its name in the design; durations in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.fetches = Counter(
            "marway_sidecar_archive_fetches", "Archives wanted that were not here.", ["outcome"], registry=self.registry
        )
        self.fetch_duration = Histogram(
            "marway_sidecar_archive_fetch_duration_seconds",
            "Time until an archive was here.",
            buckets=_LOAD_BUCKETS_S,
            registry=self.registry,
        )
        self.loads = Counter(
            "marway_sidecar_model_loads",
            "Loads of versions into the model server.",
            ["model", "version", "outcome"],
            registry=self.registry,
        )
        self.load_duration = Histogram(
            "marway_sidecar_model_load_duration_seconds",
            "Time of a load, from wanted to ready.",
            buckets=_LOAD_BUCKETS_S,
            registry=self.registry,
        )
        self.golden_checks = Counter(
            "marway_sidecar_golden_checks",
            "Golden examples sent after loads and for proofs: same, different, or failed when none could be sent.",
            ["model", "version", "outcome"],
            registry=self.registry,
        )
        self.models = Gauge("marway_sidecar_models", "Versions by state.", ["state"], registry=self.registry)
        self.workers = Gauge(
            "marway_sidecar_workers", "Workers up.", ["model", "version", "mode"], registry=self.registry
        )
        self.in_flight = Gauge("marway_sidecar_requests_in_flight", "Requests being answered.", registry=self.registry)
