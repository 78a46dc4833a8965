"""Waiting between attempts: full jitter, so that many who failed together do not meet again."""

from __future__ import annotations

import random
import time

__all__ = ["Backoff"]


class Backoff:
    """A few waits, each of a random length up to a limit that doubles.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Args:
        waits: How many there are.
        base_s: Limit of the first.
        max_s: Limit of any.
        give_up_s: No wait begins later than this: attempts that time out are slow enough by themselves.
    """

    def __init__(self, *, waits: int = 5, base_s: float = 0.1, max_s: float = 3.0, give_up_s: float = 20.0) -> None:
        self._left = waits
        self._limit = base_s
        self._max = max_s
        self._last = time.monotonic() + give_up_s

    def wait(self) -> bool:
        """Wait, or return False at once when there have been enough attempts."""
        if self._left == 0 or time.monotonic() > self._last:
            return False
        self._left -= 1
        time.sleep(random.uniform(0, self._limit))  # full jitter: those who failed together must not come back so
        self._limit = min(self._max, self._limit * 2)
        return True
