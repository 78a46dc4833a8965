"""Observations and feedback as tables of DuckDB, from a directory or from S3."""

from __future__ import annotations

from marway_observations.reading.files import LeftOut
from marway_observations.reading.observed import Observed

__all__ = ["LeftOut", "Observed"]
