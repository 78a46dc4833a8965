"""Where the time of a load goes."""

from __future__ import annotations

import time

__all__ = ["Phases"]


class Phases:
    """A stopwatch that is read at the end of each phase.

    Attributes:
        seconds: What each phase took, in the order in which they ended.
    """

    __slots__ = ("_since", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    @property
    def milliseconds(self) -> dict[str, float]:
        """The same in milliseconds, rounded for a log line."""
        return {phase: round(seconds * 1000, 1) for phase, seconds in self.seconds.items()}

    def end(self, phase: str) -> None:
        """Say that a phase ends now, and the next one begins."""
        now = time.monotonic()
        self.seconds[phase] = now - self._since
        self._since = now
