"""The gateway's metrics that are counted as things happen; `marway_gateway.observe.gauges` has the others."""

from __future__ import annotations

import platform
from functools import partial
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from marway import __version__, errors
from marway.errors import MarwayError
from marway_http.loop_watch import BUCKETS_S

__all__ = ["Metrics", "outcome_of"]

_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 3.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)

_OUTCOMES: Final = (
    (
        (errors.InvalidInput, errors.NotFound, errors.Conflict, errors.Unauthenticated, errors.Unimplemented),
        "client_error",
    ),
    (errors.ModelError, "model_error"),
    (errors.DeadlineExceeded, "timeout"),
)
# Creation times of series double their number and say nothing that a restart does not.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types


def outcome_of(error: MarwayError) -> str:
    """Return the metric outcome that stands for an error."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), "unavailable")


class Metrics:
    """The gateway's metrics, in a registry of their own. Durations in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.request_duration = histogram(
            "marway_gateway_request_duration_seconds",
            "Time from a predict request's headers to the last byte of its answer.",
            ("model", "version", "surface", "outcome"),
            buckets=_BUCKETS_S,
        )
        self.graph_node_duration = histogram(
            "marway_gateway_graph_node_duration_seconds",
            "Time that a node of a graph took, its tries and its fallback together, by what became of it.",
            ("model", "version", "node", "outcome"),
            buckets=_BUCKETS_S,
        )
        self.table_fetches = counter(
            "marway_gateway_table_fetches_total", "Tables of lookup nodes that were not here.", ("outcome",)
        )
        self.requests_in_flight = gauge("marway_gateway_requests_in_flight", "Predict requests being worked on.")
        self.retries = counter(
            "marway_gateway_retries_total",
            "Further attempts of predict requests, by what the attempt before ended in.",
            ("reason",),
        )
        self.retries_refused = counter(
            "marway_gateway_retries_refused_total", "Retries that were not made because the retry budget was spent."
        )
        self.requests_queued = gauge(
            "marway_gateway_requests_queued", "Predict requests that wait for a version's turn or for room on a pod."
        )
        self.fallbacks = counter(
            "marway_gateway_fallbacks_total",
            "Predict requests that another version was asked in the place of their own, by why: `no_room`, `slow`.",
            ("model", "version", "reason"),
        )
        self.load_aheads = counter(
            "marway_gateway_load_aheads_total", "Loads asked of pods before requests went there.", ("outcome",)
        )
        self.ejections = counter("marway_gateway_ejections_total", "Pods taken out of rotation for a while.")
        self.cache_requests = counter(
            "marway_gateway_cache_requests_total",
            "Predict requests for models whose answers may be given again, by what the cache did.",
            ("outcome",),
        )
        self.traffic_requests = counter(
            "marway_gateway_traffic_requests_total",
            "Predict requests of labels that are divided between two versions, by which of them answered.",
            ("model", "label", "role"),
        )
        self.shadow_requests = counter(
            "marway_gateway_shadow_requests_total",
            "Copies of requests, to versions whose answers nobody gets, by outcome: `ok`, `model_error`, or "
            "why they were dropped.",
            ("outcome",),
        )
        self.openai_tokens = counter(
            "marway_gateway_openai_tokens_total",
            "Tokens that language models read and wrote, as their servers counted them.",
            ("model", "version", "kind"),
        )
        self.feedback_entries = counter(
            "marway_gateway_feedback_entries_total", "Pieces of feedback that were kept before their senders were told."
        )
        self.feedback_calls = counter(
            "marway_gateway_feedback_calls_total", "Calls with feedback, by what became of them.", ("outcome",)
        )
        self.feedback_write = histogram(
            "marway_gateway_feedback_write_seconds",
            "Time to write one file of feedback to the store, whether or not that took it.",
            buckets=_BUCKETS_S,
        )
        self.loop_blocked = histogram(
            "marway_gateway_loop_blocked_seconds",
            "Time in which the event loop had no turn, looked at 50 times a second.",
            buckets=BUCKETS_S,
        )
        self.observations_written = counter(
            "marway_gateway_observations_written_total", "Observations of predictions that are in the store."
        )
        self.observations_dropped = counter(
            "marway_gateway_observations_dropped_total",
            "Observations of predictions that were given up, by why.",
            ("reason",),
        )
        self.observations_waiting = gauge(
            "marway_gateway_observations_waiting", "Observations of predictions that wait to be in the store."
        )
        self.observations_oldest = gauge(
            "marway_gateway_observations_oldest_seconds", "Age of the oldest observation that waits; 0 without one."
        )
        build = gauge("marway_gateway_build_info", "What runs here; always 1.", ("version", "python"))
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
