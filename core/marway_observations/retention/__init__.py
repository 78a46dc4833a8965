"""What `marway gc` does to observations and feedback: old ones go, and the small files of hours that ended become one.

A model's observations go when they are older than the longest `observe_keep_days` of its versions, feedback when it is
older than the longest of all models; whole hours, by the store's clock.
"""

from __future__ import annotations

from marway_observations.retention.collecting import collect

__all__ = ["collect"]
