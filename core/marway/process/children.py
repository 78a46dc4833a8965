"""What a process that starts others needs: a lifeline that ends with it, and pauses before it starts one again."""

from __future__ import annotations

import contextlib
import os
from typing import Final

__all__ = ["Lifeline", "RestartPauses"]

_STEADY_S: Final = 10.0
_PAUSE_MAX_S: Final = 30.0


class Lifeline:
    """A pipe that ends when this process does; children stop when it ends (`marway.process.stop_request`)."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()  # neither is inherited unless passed on by name

    def close(self) -> None:
        """Close our ends; children that still run take it for our death."""
        for descriptor in (self.read_end, self._write_end):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class RestartPauses:
    """How long to wait before a process that ended is started again.

    One that had run for a while is started at once, as there may be no other of its kind: every second is an outage.
    One that ends soon again and again waits ``first_s``, then twice that, … up to 30 s, so that it does not eat the
    processor.

    Args:
        first_s: The first pause, in seconds.
    """

    def __init__(self, first_s: float = 0.5) -> None:
        self._first_s = first_s
        self._next_s = 0.0

    def after(self, ran_s: float) -> float:
        """Return the pause, in seconds, for a process that ran for so many seconds."""
        pause_s = 0.0 if ran_s >= _STEADY_S else self._next_s
        self._next_s = min(_PAUSE_MAX_S, max(self._first_s, pause_s * 2))
        return pause_s
