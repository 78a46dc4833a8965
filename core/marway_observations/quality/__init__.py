"""How good a version's answers turned out to be, from observations and the feedback about them."""

from __future__ import annotations

from marway_observations.quality.measuring import measure
from marway_observations.quality.model_quality import ModelQuality, quality_of, unmatched

__all__ = ["ModelQuality", "measure", "quality_of", "unmatched"]
