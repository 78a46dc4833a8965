"""Spans of predictions, as OpenTelemetry has them."""
