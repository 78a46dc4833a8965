"""How good a version's answers turned out to be, from observations and the feedback about them."""

from __future__ import annotations

from marway_observations.quality.asking import Asked, quality_of, unmatched
from marway_observations.quality.measuring import measure

__all__ = ["Asked", "measure", "quality_of", "unmatched"]
