"""Who waits for a version, one group of callers after the other.

The next is taken from each group in turn (round robin), within a group in the order of coming. So a group that sends a
thousand requests at once delays another's single one by one turn, not by a thousand. When all places are taken, the
group that holds the most gives up its last one to a group that holds at least two fewer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

__all__ = ["FairQueue", "QueueFull"]


class QueueFull(Exception):
    """As many wait as may, and nobody of them more than the one who came."""


class _Waits(Protocol):
    @property
    def group(self) -> str: ...

    @property
    def since(self) -> float: ...


W = TypeVar("W", bound=_Waits)


class FairQueue(Generic[W]):
    """A queue of what has a `group`, and a moment `since` which it waits.

    Args:
        limit: How many may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._first: deque[W] = deque()
        self._groups: dict[str, deque[W]] = {}
        self._turns: deque[str] = deque()

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self._count >= self._limit

    def push(self, item: W) -> W | None:
        """Add one who comes; return who has to go for it, if anybody has.

        Raises:
            QueueFull: There is no place for it.
        """
        out = self._make_room(item) if self.full else None
        line = self._groups.get(item.group)
        if line is None:
            line = self._groups[item.group] = deque()
            self._turns.append(item.group)
        line.append(item)
        self._count += 1
        return out

    def push_first(self, items: Iterable[W]) -> None:
        """Put back who was taken, in this order, before all others; whether there is a place or not."""
        back = list(items)
        self._first.extendleft(reversed(back))
        self._count += len(back)

    def peek(self) -> W:
        """Return who is next."""
        return self._first[0] if self._first else self._groups[self._turns[0]][0]

    def pop(self) -> W:
        """Take who is next."""
        self._count -= 1
        if self._first:
            return self._first.popleft()
        group = self._turns[0]
        line = self._groups[group]
        item = line.popleft()
        if line:
            self._turns.rotate(-1)
        else:
            self._turns.popleft()
            del self._groups[group]
        return item

    def remove(self, item: W) -> None:
        """Take one out who leaves; one who is not there may be."""
        line = self._groups.get(item.group, ())
        if item in line:
            assert isinstance(line, deque)
            line.remove(item)
            if not line:
                del self._groups[item.group]
                self._turns.remove(item.group)
        elif item in self._first:
            self._first.remove(item)
        else:
            return
        self._count -= 1

    def clear(self) -> list[W]:
        """Take all."""
        return [self.pop() for _ in range(self._count)]

    def oldest_wait_s(self) -> float:
        """Return how long who has waited longest has waited, in seconds; 0 when nobody waits."""
        if not self._count:
            return 0.0
        fronts = [line[0].since for line in (self._first, *self._groups.values()) if line]
        return time.monotonic() - min(fronts)

    def _make_room(self, item: W) -> W:
        longest = max(self._groups.values(), key=len, default=None)
        if longest is None or len(longest) < len(self._groups.get(item.group, ())) + 2:
            raise QueueFull
        self._count -= 1
        return longest.pop()
