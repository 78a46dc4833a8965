"""How a label is divided: rollouts and shadow copies, each change by one compare-and-swap."""

from __future__ import annotations

from marway.registry.traffic.rollouts import RollingOut
from marway.registry.traffic.shadowing import Shadowing
from marway.registry.traffic.starting import StartingRollouts
from marway.registry.traffic.status import ReadingRollouts

__all__ = ["DividedLabels"]


class DividedLabels(StartingRollouts, RollingOut, Shadowing, ReadingRollouts):
    """All that can be done with a label whose requests do not all go to its version, and asked of it."""
