"""Settings about traces."""

from __future__ import annotations

from marway.settings import ComponentSettings
from marway_http.traces import TracesSetting

__all__ = ["TraceSettings"]


class TraceSettings(ComponentSettings):
    """Traces."""

    traces: TracesSetting = "off"
    """Whether spans of predictions, calls of workers and loads are sent to a tracing system: `otlp` sends them over
    OTLP/HTTP to where OpenTelemetry's own environment variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, …). Off, as they
    go to somebody."""
