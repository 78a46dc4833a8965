"""How many predictions of each version ended in the last minute, for people who look at it now.

Prometheus keeps the same over time, of all gateways together. This is of one process, as it remembers it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from prometheus_client import Histogram

__all__ = ["Recent", "RecentRequests"]

Version = tuple[str, str]
"""A model's name and its version."""

_EVERY_S: Final = 5.0
_WINDOW_S: Final = 60.0
_FAULTS: Final = frozenset({"model_error", "unavailable", "timeout"})
"""Outcomes that are a fault of the model, its pod or Marway, not of who asked."""


class Recent(NamedTuple):
    """Predictions of the last minute, or since the start where that is nearer.

    Attributes:
        requests: All that ended.
        errors: Those of them that failed by a fault of the model, its pod or Marway.
    """

    requests: int
    errors: int


class RecentRequests:
    """Looks at what telemetry counted, every 5 seconds, and remembers a minute of it.

    Args:
        durations: The histogram of each model, version, surface and outcome, as `Telemetry` has them.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        durations: Mapping[tuple[str, str, str, str], Histogram],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._durations = durations
        self._clock = clock
        self._looks: deque[tuple[float, dict[Version, tuple[int, int]]]] = deque([(clock(), {})])

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            self.look()

    def look(self) -> None:
        """Remember what is counted now, and forget what is older than a minute."""
        now = self._clock()
        self._looks.append((now, self._counted()))
        while len(self._looks) > 1 and self._looks[1][0] <= now - _WINDOW_S:
            self._looks.popleft()

    def counts(self) -> dict[Version, Recent]:
        """Return the versions that were asked for in the last minute, and how often."""
        _, before = self._looks[0]
        found = {}
        for version, (requests, errors) in self._counted().items():
            requests_before, errors_before = before.get(version, (0, 0))
            if requests > requests_before:
                found[version] = Recent(requests - requests_before, errors - errors_before)
        return found

    def _counted(self) -> dict[Version, tuple[int, int]]:
        found: dict[Version, tuple[int, int]] = {}
        for (model, version, _, outcome), histogram in list(self._durations.items()):
            count = _observed(histogram)
            requests, errors = found.get((model, version), (0, 0))
            found[model, version] = requests + count, errors + (count if outcome in _FAULTS else 0)
        return found


def _observed(histogram: Histogram) -> int:
    """Return how many values a histogram has: `collect` makes twenty objects of each, which is too much every time."""
    return int(sum(bucket.get() for bucket in histogram._buckets))
