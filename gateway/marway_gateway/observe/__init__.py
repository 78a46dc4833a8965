"""Metrics, access log and gauges."""
