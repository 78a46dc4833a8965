"""Spans of what a pod does, as OpenTelemetry has them."""
