"""What is known of a request, and what is told of it at its end: metrics, and one line in the access log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from prometheus_client import Counter, Histogram

from marway import errors
from marway.errors import MarwayError
from marway.redaction import redaction_of
from marway.serving import ServingSettings
from marway.wire.headers import REQUEST_GROUP_ID, REQUEST_ID
from marway.wire.request import RequestIds
from marway_gateway.observe.bodies import Observe
from marway_gateway.observe.logs import LogSink
from marway_gateway.observe.metrics import Metrics, outcome_of
from marway_gateway.observe.observed import ObservationSink, RequestSpans, Tokens
from marway_gateway.observe.open_inference_json import media_type_of
from marway_gateway.observe.prediction_id import new_prediction_id
from marway_gateway.traffic.assignment import Assignment

__all__ = ["RequestInfo", "Telemetry"]

_PATH_MAX: Final = 300
_OF_HEADERS: Final = ((REQUEST_ID, "request_id"), (REQUEST_GROUP_ID, "group_id"))
_AS_NAMED: Final = (
    *("status", "surface", "pod", "prediction_id"),
    *("label", "fallback", "group_id", "cache", "error", "graph", "node"),
)
_UNLOGGED: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestInfo:
    """What is known of one request so far. Whoever works on it fills it in; surfaces report it at its end.

    Attributes:
        ids: Which request this is, and of which trace.
        request_id, group_id: Those of ``ids``.
        surface: Which predict protocol, or None when it is no predict request.
        model, version, model_id: What it resolved to, or None before that.
        label: The label that led there, or None.
        pod: The pod that was asked last.
        attempts: Pods asked.
        cache: hit, miss or bypass; None where the model's answers are not kept.
        resolve_s, pod_s: Time spent on resolving and on the last attempt.
        run: How the model server ran it, as the pod that answered said it; `ModelRun.parse` reads it.
        status: What was answered, in the surface's own terms (HTTP status, gRPC code).
        outcome: One of the design's outcomes.
        error: The stable code of the error that ended it.
        tokens: What the model server counted, where it said so.
        client: Who asks: the name of its token, else its address, where they are known.
        headers: An HTTP request's, names in lower case; of several with one name the last.
        metadata: The same of a call over gRPC.
        prediction_id: Which prediction this is, from `Telemetry.predicting` on; None where it is none.
        serving: How the version is served; None before that is known.
        observe: What is kept of this very request, by those settings and the draw.
        role: Why the version was asked: base, candidate, shadow or batch.
        fallback: `MODEL/VERSION` that was asked in the place of the one that was resolved; None as nearly always.
        assignment: Which side of the label's two versions it was drawn to; None where the label is not divided.
        input, output: What the caller sent and got; where its protocol has no bytes for that, what a pod is sent and
            sends. None where it is not kept, see `bodies`, and before it is known.
        input_media, output_headers: Where `input_type` and `output_type` are, when they are asked for.
        bodies: kept, or why input or output is not: off, too_large, streamed, failed, not_redactable.
        graph, node: The prediction of a graph that asked, and by which node; None where the caller asked.
        steps: What `Server-Timing` says of a graph's nodes.
        notes: Further headers that say how the answer came to be.
        waits: When it waited here for its turn, from and to.
        span: Its own, where traces are on.
    """

    surface: str | None = None
    model: str | None = None
    version: str | None = None
    model_id: str | None = None
    label: str | None = None
    pod: str | None = None
    attempts = 0
    cache: str | None = None
    resolve_s: float | None = None
    pod_s: float | None = None
    run: bytes | None = None
    status: int | str | None = None
    outcome = "ok"
    error: str | None = None
    tokens: Tokens | None = None
    request_bytes = 0
    response_bytes = 0
    client: str | None = None
    headers: Mapping[bytes, bytes] = MappingProxyType({})
    metadata: Mapping[str, str] = MappingProxyType({})
    prediction_id: str | None = None
    serving: ServingSettings | None = None
    observe: Observe = "off"
    role = "base"
    fallback: str | None = None
    assignment: Assignment | None = None
    input: bytes | None = None
    input_media: str | None = None
    output: bytes | None = None
    output_headers = b""
    bodies = "off"
    graph: str | None = None
    node: str | None = None
    steps = ""
    notes: tuple[tuple[str, str], ...] = ()
    waits: tuple[tuple[float, float], ...] = ()
    span: object | None = None

    def __init__(self, *, method: str, path: str, ids: RequestIds) -> None:
        self.started = time.perf_counter()
        self.method = method
        self.path = path
        self.ids = ids
        self.request_id = ids.request_id
        self.group_id = ids.group_id

    def failed(self, error: MarwayError) -> None:
        """Take in how the request ended."""
        self.outcome = outcome_of(error)
        self.error = error.code

    def header_or_metadata(self, name: str) -> str | None:
        """Return what the caller's header or metadata of a name in lower case says; None where it has none."""
        given = self.headers.get(name.encode())
        return self.metadata.get(name) if given is None else given.decode("latin-1")

    @property
    def input_type(self) -> str | None:
        """The content type of `input`, or None where nobody said it."""
        if self.input_media is not None:
            return self.input_media
        given = self.headers.get(b"content-type")
        return None if given is None else given.decode("latin-1")

    @property
    def output_type(self) -> str | None:
        """The content type of `output`, or None where nobody said it."""
        return media_type_of(self.output_headers)

    def server_timing(self) -> str:
        """Return the `Server-Timing` header (W3C): milliseconds of resolving, of the pod and in all, so far."""
        parts = [self.steps] if self.steps else []
        if self.resolve_s is not None:
            parts.append(f"resolve;dur={self.resolve_s * 1000:.3f}")
        if self.cache is not None:
            parts.append(f"cache;desc={self.cache}")
        if self.pod_s is not None:
            parts.append(f"pod;dur={self.pod_s * 1000:.3f}")
        parts.append(f"total;dur={(time.perf_counter() - self.started) * 1000:.3f}")
        return ", ".join(parts)


class Telemetry:
    """Counts and logs requests.

    Args:
        metrics: Where to count.
        access_log: Where to log, or None.
        observations: Keeps predictions, or None.
    """

    def __init__(
        self, metrics: Metrics, access_log: LogSink | None, observations: ObservationSink | None = None
    ) -> None:
        self.metrics = metrics
        self.live: Callable[[RequestInfo, Assignment], None] = lambda info, assignment: None
        """Told of each answer of a label that is divided."""
        self.traces: RequestSpans | None = None
        self._access_log = access_log
        self._observations = observations
        self._in_flight = 0
        self.durations: dict[tuple[str, str, str, str], Histogram] = {}
        self._traffic: dict[tuple[str | None, str | None, str], Counter] = {}
        metrics.requests_in_flight.set_function(lambda: self._in_flight)

    def predicting(self, info: RequestInfo, surface: str, *, observed: bool = True) -> None:
        """Say that the request is a prediction over ``surface``; it counts as in flight until `finish`.

        Args:
            info: The request's.
            surface: The predict protocol.
            observed: Whether its answer is a prediction that may be kept, and has an id, or tells of the model itself.
        """
        info.surface = surface
        if self.traces is not None:
            self.traces.begin(info)
        if observed:
            info.prediction_id = new_prediction_id()
        self._in_flight += 1

    def finish(self, info: RequestInfo) -> None:
        """Report a request; call it once, whatever happened."""
        duration_s = time.perf_counter() - info.started
        if info.surface is not None:
            self._in_flight -= 1
            # Only what was resolved becomes a label: callers must not be able to make series.
            labels = info.model or "", info.version or "", info.surface, info.outcome
            durations = self.durations.get(labels)
            if durations is None:  # looking one up costs several times what counting does
                durations = self.durations[labels] = self.metrics.request_duration.labels(*labels)
            durations.observe(duration_s)
            if info.assignment is not None:
                self._count_traffic(info)
                self.live(info, info.assignment)
            if info.tokens is not None and info.cache != "hit":  # an answer given again cost none
                for kind, count in info.tokens._asdict().items():
                    self.metrics.openai_tokens.labels(info.model or "", info.version or "", kind).inc(count)
            if self._observations is not None and info.observe != "off":
                self._observations.add(info, duration_s)
            if self.traces is not None:
                self.traces.end(info)
        if self._access_log is not None and info.path not in _UNLOGGED:
            self._access_log.put((time.time(), _fields(info, duration_s)))

    def copied(self, info: RequestInfo) -> None:
        """Keep what a version made of a copy of a request, where that is to be kept: of user traffic it is no part."""
        if self._observations is not None and info.observe != "off":
            self._observations.add(info, info.pod_s or 0.0)

    def _count_traffic(self, info: RequestInfo) -> None:
        labels = info.model, info.label, info.role
        requests = self._traffic.get(labels)
        if requests is None:  # as with durations
            requests = self._traffic[labels] = self.metrics.traffic_requests.labels(*labels)
        requests.inc()


def _fields(info: RequestInfo, duration_s: float) -> dict[str, object]:
    """Return what the access log says of a request, without what is not known of it."""
    fields: dict[str, object] = {
        "method": info.method,
        "path": info.path if len(info.path) <= _PATH_MAX else errors.clip(info.path, _PATH_MAX),
        "outcome": info.outcome,
        "request_id": info.request_id,
        "retries": max(0, info.attempts - 1),
        "duration_ms": _ms(duration_s),
        "request_bytes": info.request_bytes,
        "response_bytes": info.response_bytes,
    }
    if info.model is not None:
        fields["model"], fields["version"] = info.model, info.version
    if info.resolve_s is not None:
        fields["resolve_ms"] = _ms(info.resolve_s)
    if info.pod_s is not None:
        fields["pod_ms"] = _ms(info.pod_s)
    if info.assignment is not None:
        fields["traffic"] = info.role
    for name in _AS_NAMED:
        if (value := getattr(info, name)) is not None:
            fields[name] = value
    if info.tokens is not None:
        fields["prompt_tokens"], fields["completion_tokens"] = info.tokens
    if info.serving is not None and info.serving.observe_redact:
        for header, name in _OF_HEADERS:
            if header in redaction_of(info.serving.observe_redact).headers:
                fields.pop(name, None)
    return fields


def _ms(seconds: float) -> float:
    """Return milliseconds with three digits behind the point."""
    return int(seconds * 1_000_000 + 0.5) / 1000
