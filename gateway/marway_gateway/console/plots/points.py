"""What plots are made of: points, and lines of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Line", "Point"]


class Point(NamedTuple):
    """A value at a place of the horizontal axis; None is a gap. `low` and `high` say how surely it is known."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Points in order of `x`, joined. A line that `steps` keeps its value until the next point."""

    name: str
    points: Sequence[Point]
    steps: bool = False
