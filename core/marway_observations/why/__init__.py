"""Where one answer came from: what was kept of it, joined with what the registry knows, and the same question again."""

from __future__ import annotations

from marway_observations.why.explaining import explained
from marway_observations.why.finding import Found, find
from marway_observations.why.replaying import NotReplayed, replayed

__all__ = ["Found", "NotReplayed", "explained", "find", "replayed"]
