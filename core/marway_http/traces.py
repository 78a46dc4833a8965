"""Spans of OpenTelemetry, which gateway and sidecar send to a tracing system over OTLP/HTTP.

Where to and how many is said by OpenTelemetry's own environment variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, …), which its SDK reads. Parents travel in headers and not in context
variables, as requests here run without a task of their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from marway.errors import InvalidSettings, MarwayError, clip
from marway.wire.headers import TRACEPARENT, TRACESTATE
from marway.wire.request import RequestIds

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

__all__ = ["Kind", "Traces", "TracesSetting", "fail", "open_traces", "sampled", "wall_clock"]

Kind = Literal["SERVER", "CLIENT", "INTERNAL"]
TracesSetting = Literal["off", "otlp"]
Attribute = str | int | float | bool | None

_CLOSE_S: Final = 2.0
"""How long ending a process waits for spans to be sent: a collector that is away must not hold it up."""
_MESSAGE_MAX: Final = 300


class Traces:
    """Begins spans.

    Args:
        provider: OpenTelemetry's.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("marway")
        self._kinds = SpanKind
        self._within = set_span_in_context
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self,
        name: str,
        parent: RequestIds | Mapping[str, str],
        *,
        kind: Kind = "INTERNAL",
        at: float | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """Return a span that has begun; whoever asked for it ends it.

        Args:
            name: One of few: no id is part of it.
            parent: The trace context it is within, as a request's ids or its headers (names in lower case) have it.
            kind: OpenTelemetry's.
            at: When it began, in seconds since 1970; now when None.
            attributes: What is known of it; those that are None are left out.
        """
        carrier = parent.headers() if isinstance(parent, RequestIds) else parent
        return self._tracer.start_span(
            name,
            self._propagator.extract(carrier),
            self._kinds[kind],
            {key: value for key, value in (attributes or {}).items() if value is not None},
            start_time=None if at is None else int(at * 1e9),
        )

    def past(
        self, name: str, parent: Span, began: float, ended: float, attributes: Mapping[str, Attribute] | None = None
    ) -> None:
        """Tell of what is over: a span within another, with its times in seconds since 1970."""
        if parent.is_recording():
            given = {key: value for key, value in (attributes or {}).items() if value is not None}
            span = self._tracer.start_span(name, self._within(parent), attributes=given, start_time=int(began * 1e9))
            span.end(int(ended * 1e9))

    def headers(self, span: Span) -> dict[str, str]:
        """Return the headers that make what they are sent with a part of a span."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers, self._within(span))
        return headers

    def within(self, ids: RequestIds, span: Span) -> RequestIds:
        """Return a request's ids with the trace context of a span in the place of its caller's."""
        headers = self.headers(span)
        return ids._replace(traceparent=headers.get(TRACEPARENT), tracestate=headers.get(TRACESTATE))

    def close(self) -> None:
        """Send what waits, as far as that takes two seconds at most; it blocks."""
        # The SDK's own limits are not kept: `force_flush` knows none, and `shutdown` waits half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="close-traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def sampled(headers: Mapping[str, str]) -> bool:
    """Return whether a valid trace context in headers says that its spans are kept (W3C Trace Context §3.2.2.5)."""
    context = headers.get(TRACEPARENT)
    return context is not None and bool(int(context[53:55], 16) & 1)


def fail(span: Span, error: BaseException) -> None:
    """Mark a span as failed: by an error of ours with its code, else with the exception's type."""
    from opentelemetry.trace import StatusCode

    ours = isinstance(error, MarwayError)
    span.set_attribute("error.type", error.code if isinstance(error, MarwayError) else type(error).__qualname__)
    span.set_status(StatusCode.ERROR, clip(error.message if ours else str(error), _MESSAGE_MAX))  # type: ignore[attr-defined]


def open_traces(setting: TracesSetting, *, service: str, instance: str | None = None) -> Traces | None:
    """Return what begins spans, or None where they are off.

    Args:
        setting: The component's setting `traces`.
        service: The service's name, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` gives another.
        instance: Which of several it is, such as the pod's name.

    Raises:
        InvalidSettings: OpenTelemetry is not installed, or one of its variables cannot be used.
    """
    if setting == "off":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise InvalidSettings("traces = 'otlp' needs OpenTelemetry: pip install 'marway[otel]'") from exc
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        raise InvalidSettings(f"traces are sent as http/protobuf, and OTEL_EXPORTER_OTLP_PROTOCOL says {protocol!r}")
    own: dict[str, Any] = {"service.name": service, "service.namespace": "marway"}
    if instance is not None:
        own["service.instance.id"] = instance
    try:
        resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, OSError) as exc:
        raise InvalidSettings(f"traces cannot be sent as OpenTelemetry's variables say: {exc}") from exc
    return Traces(provider)


def wall_clock(perf_counter: float) -> float:
    """Return a moment of `time.perf_counter` in seconds since 1970."""
    return time.time() - (time.perf_counter() - perf_counter)
