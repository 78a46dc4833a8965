"""Where one answer came from: what was kept of it, joined with what the registry knows, and the same question again."""

from __future__ import annotations

from marway_observations.why.explaining import explained
from marway_observations.why.finding import Found, find
from marway_observations.why.replaying import NotReplayed, replayed
from marway_observations.why.steps import steps_of

__all__ = ["Found", "NotReplayed", "explained", "find", "replayed", "steps_of"]
