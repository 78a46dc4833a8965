"""Which pods a version is placed on, in which order, and who of them is asked next."""

from __future__ import annotations

from marway_gateway.placement.demand import Demand, demand_of
from marway_gateway.placement.pod import Pod
from marway_gateway.placement.podset import PodSet, score

__all__ = ["Demand", "Pod", "PodSet", "demand_of", "score"]
