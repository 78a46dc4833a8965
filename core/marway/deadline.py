"""One deadline for a whole request, passed down through everything that serves it."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, so that a wall clock that jumps changes nothing.

    Attributes:
        at: The moment, in seconds of `time.monotonic`, by which event loops, `loop.call_at` and `asyncio.timeout_at`
            count as well.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at

    def left_s(self) -> float:
        """Return the seconds left; negative when it has passed."""
        return self.at - time.monotonic()

    remaining = left_s
