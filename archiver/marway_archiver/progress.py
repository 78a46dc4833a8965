"""Progress over work of several parts, told as one."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Meter", "Phases", "Progress"]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; the last call has both equal."""


class Meter:
    """Turns ticks of several passes over the same bytes into one progress."""

    def __init__(self, total: int, passes: int, progress: Progress | None) -> None:
        self._total, self._passes, self._progress = total, passes, progress
        self._ticks = 0

    def tick(self, count: int) -> None:
        self._ticks += count
        if self._progress is not None:
            self._progress(min(self._ticks // self._passes, self._total), self._total)

    def end(self) -> None:
        if self._progress is not None:
            self._progress(self._total, self._total)


class Phases:
    """Turns the progress of ``count`` pieces of work, one after another, into one that never falls.

    Each piece has an equal share. The total is the first one told, whatever the later pieces call theirs.
    """

    def __init__(self, count: int, progress: Progress | None) -> None:
        self._count, self._progress = count, progress
        self._begun = self._total = self._done = 0

    def next(self) -> Progress:
        """Begin the next piece; what was not told of the one before counts as done."""
        number = self._begun
        self._begun += 1
        if self._total:
            self._tell(self._total * number // self._count)

        def update(done: int, total: int) -> None:
            self._total = self._total or total
            share = min(done / total, 1.0) if total else 1.0
            self._tell(int(self._total * (number + share) / self._count))

        return update

    def end(self) -> None:
        """Tell that all is done."""
        self._tell(self._total)

    def _tell(self, done: int) -> None:
        self._done = max(self._done, done)
        if self._progress is not None:
            self._progress(self._done, self._total)
