"""One deadline for a whole request, passed down through everything that serves it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from marway.errors import DeadlineExceeded

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, so that a wall clock that jumps changes nothing.

    Attributes:
        at: The moment, in seconds of `time.monotonic`, by which event loops, `loop.call_at` and `asyncio.timeout_at`
            count as well.
        timeout_s: How far away it was when it was set, for messages.
    """

    at: float
    timeout_s: float = 0.0

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds, seconds)

    def within(self, timeout_s: float | None) -> Deadline:
        """Return this deadline, or the one so many seconds after the moment when this was set, if that is earlier."""
        if timeout_s is None or timeout_s >= self.timeout_s:
            return self
        return Deadline(self.at - self.timeout_s + timeout_s, timeout_s)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at

    def left_s(self) -> float:
        """Return the seconds left; negative when it has passed."""
        return self.at - time.monotonic()

    def time_left_s(self, *, model: str) -> float:
        """Return the seconds left for a model's server to be asked.

        Raises:
            DeadlineExceeded: None are.
        """
        left_s = self.left_s()
        if left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the model was asked", model=model)
        return left_s
