"""What is kept of predictions: a bounded buffer, a thread of its own, Parquet files in an object store."""

from __future__ import annotations

from marway_gateway.observe.observations.limits import Limits
from marway_gateway.observe.observations.observations import Observations

__all__ = ["Limits", "Observations"]
