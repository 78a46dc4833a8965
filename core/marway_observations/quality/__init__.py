"""How good a version's answers turned out to be, from observations and the feedback about them."""

from __future__ import annotations

from marway_observations.quality.measuring import Quality, measure

__all__ = ["Quality", "measure"]
