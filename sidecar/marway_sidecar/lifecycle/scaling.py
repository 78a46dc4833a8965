"""How many workers a version should have: quickly more, slowly fewer."""

from __future__ import annotations

import time
from collections import deque

from marway.records import ServingSettings

__all__ = ["Usage", "bounds", "more"]


def bounds(serving: ServingSettings, *, cpus: int) -> tuple[int, int]:
    """Return the least and the most workers of a version that is loaded; the least of a pinned one is 1."""
    least = max(serving.min_workers, 1 if serving.pinned else 0)
    most = serving.max_workers if serving.max_workers is not None else cpus
    return least, max(least, most, 1)


def more(workers: int, *, queued: int, most: int) -> int:
    """Return how many workers to go up to: one for each that waits, at most twice as many as there are."""
    return min(most, workers + max(1, min(queued, workers)))


class Usage:
    """The most calls that were wanted at once within a window: the workers that were of use.

    Args:
        window_s: Its length in seconds. Only what stayed unused for the whole of it is given up.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._peaks: deque[tuple[float, int]] = deque()
        self._since = time.monotonic()

    def note(self, peak: int) -> None:
        """Add the peak since the last note."""
        now = time.monotonic()
        while self._peaks and (self._peaks[-1][1] <= peak or self._peaks[0][0] < now - self._window_s):
            if self._peaks[0][0] < now - self._window_s:
                self._peaks.popleft()
            else:
                self._peaks.pop()
        self._peaks.append((now, peak))

    def fewer(self, workers: int) -> int:
        """Return how many of ``workers`` were of use; all, until the window has passed since the last `restart`."""
        if time.monotonic() - self._since < self._window_s:
            return workers
        return min(workers, max((peak for _, peak in self._peaks), default=0))

    def restart(self) -> None:
        """Begin a new window: the number of workers was just changed."""
        self._since = time.monotonic()
