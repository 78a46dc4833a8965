"""Predictions for whole files: read in parts, asked at the lowest priority, each part written once and whole."""

from __future__ import annotations

from marway_ops.batch.running import BatchRun, Done

__all__ = ["BatchRun", "Done"]
