"""Kept inputs of callers, sent once more to two versions at the lowest priority, and how their answers differ."""

from __future__ import annotations

from marway_observations.replay.choosing import Inputs, Wanted, choose
from marway_observations.replay.replaying import Progress, Replaying

__all__ = ["Inputs", "Progress", "Replaying", "Wanted", "choose"]
