"""Which pods a version is placed on, in which order, and who of them is asked next."""

from __future__ import annotations

from marway_gateway.placement.pod import Pod
from marway_gateway.placement.podset import PodSet
from marway_gateway.placement.spec import PlacementSpec, placement_spec, score

__all__ = ["PlacementSpec", "Pod", "PodSet", "placement_spec", "score"]
