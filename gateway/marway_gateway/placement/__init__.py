"""Which pods a version is placed on, in which order, and who of them is asked next."""

from __future__ import annotations

from marway_gateway.placement.choice import PlacementSpec, placement_spec, score
from marway_gateway.placement.pod import Pod, VersionKey
from marway_gateway.placement.podset import Ejection, PodSet

__all__ = ["Ejection", "PlacementSpec", "Pod", "PodSet", "VersionKey", "placement_spec", "score"]
