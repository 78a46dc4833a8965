"""Which pods a version is placed on, in which order, and who of them is asked next."""

from __future__ import annotations

from marway_gateway.placement.pod import Pod
from marway_gateway.placement.podset import PodSet, score
from marway_gateway.placement.spec import PlacementSpec, placement_spec

__all__ = ["PlacementSpec", "Pod", "PodSet", "placement_spec", "score"]
