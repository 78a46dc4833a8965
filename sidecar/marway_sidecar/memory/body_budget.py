"""Memory for the bodies of requests: taken as their bytes come, never more at once than is set aside for them.

Three rules keep a client's slowness its own:

- A body holds what came of it, not what was announced.
- Bodies that are still coming never fill all memory: room for the largest one stays free, and one body at a time, the
  *first*, is promised what it lacks of that. So one can always come to its end, however many are half here. A quarter
  of what is left is for small bodies alone, which large ones thus never hold up.
- While somebody waits for memory, a body that comes slower than `_SLOW_BYTES` a second has to go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from typing import Final

__all__ = ["BodyBudget", "HeldBytes"]

_SMALL_BYTES: Final = 1024 * 1024
"""Bodies up to here have a quarter of the memory for themselves: a gateway has them whole before it sends them."""
_SLOW_BYTES: Final = 64 * 1024
_LOOK_S: Final = 1.0
"""How often slow bodies are looked for while somebody waits."""
_EMPTY_S: Final = 5.0
_age: Final = attrgetter("age")


class BodyBudget:
    """The bytes that bodies may take together.

    Args:
        limit_bytes: How many; never less than the largest body has.
        largest_bytes: The most that one body may have.
        emptied: Called when there was no body for a while, after there were some.

    Attributes:
        held_bytes: What all of them hold now.
    """

    def __init__(self, limit_bytes: int, *, largest_bytes: int, emptied: Callable[[], None] = lambda: None) -> None:
        self.held_bytes = 0
        self._limit_bytes = max(limit_bytes, largest_bytes)
        self._coming_limit_bytes = self._limit_bytes - largest_bytes
        self._large_limit_bytes = self._coming_limit_bytes * 3 // 4
        self._coming: dict[HeldBytes, None] = {}
        self._coming_bytes = 0
        """Of the bodies that are coming, without the first."""
        self._large_bytes = 0
        """The same of the large ones."""
        self._first: HeldBytes | None = None
        self._lanes: tuple[dict[HeldBytes, _Waiter], dict[HeldBytes, _Waiter]] = ({}, {})
        """Small bodies that wait, and large ones."""
        self._looking: asyncio.TimerHandle | None = None
        self._emptied = emptied
        self._telling: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many bodies wait to be read on."""
        return sum(map(len, self._lanes))

    def open(self, most: int, give_up: Callable[[], None]) -> HeldBytes:
        """Return the memory of a body that begins to come, none yet; `release` ends it.

        Args:
            most: How many bytes it has at most.
            give_up: Called when it has to go, because it comes too slowly for those who wait.
        """
        body = HeldBytes(self, most, give_up)
        self._coming[body] = None
        return body

    # -- who gets what -------------------------------------------------------------------------------------

    def _give(self, body: HeldBytes, count: int) -> bool:
        """Give ``body`` so many bytes more if there is room, or if it is the first; return whether it has them."""
        first = self._first
        if body is not first:
            promised = first.most - first.size if first is not None else 0
            if (
                self.held_bytes + promised + count <= self._limit_bytes
                and self._coming_bytes + count <= self._coming_limit_bytes
                and (not body.large or self._large_bytes + count <= self._large_limit_bytes)
            ):
                self._count(body, count)
            elif first is None and self.held_bytes + body.most - body.size <= self._limit_bytes:
                self._count(body, -body.size)
                self._first = body
            else:
                return False
        body.size += count
        self.held_bytes += count
        return True

    def _count(self, body: HeldBytes, count: int) -> None:
        self._coming_bytes += count
        if body.large:
            self._large_bytes += count

    def _let_in(self) -> None:
        """Give memory to those who wait, of each kind the one that came first."""
        while True:
            heads = sorted((min(lane, key=_age) for lane in self._lanes if lane), key=_age)
            if not any(map(self._lets_in, heads)):
                return

    def _lets_in(self, body: HeldBytes) -> bool:
        lane = self._lanes[body.large]
        came, count = lane[body]
        if not came.done():
            if not self._give(body, count):
                return False
            body.seen = None
            came.set_result(None)
        del lane[body]
        return True

    # -- time ----------------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        for body in self._coming:
            body.seen = body.size
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """End slow bodies, the largest first, as far as their memory is wanted."""
        self._looking = None
        waiting = {**self._lanes[False], **self._lanes[True]}
        if not waiting:
            return
        wanted = sum(count for _, count in waiting.values())
        slow = [
            body
            for body in self._coming
            if body.size and body.seen is not None and body.size - body.seen < _SLOW_BYTES and body not in waiting
        ]
        for body in sorted(slow, key=attrgetter("size"), reverse=True):
            if wanted <= 0:
                break
            wanted -= body.size
            body.give_up()
        self._look_soon()

    def _tell_if_empty(self) -> None:
        if not self.held_bytes:  # else the next end tells
            self._emptied()


class HeldBytes:
    """The memory of one body, until its request and every call with it have ended.

    Attributes:
        age: The lower, the earlier it began to come.
        give_up: Ends it from outside.
        large: Whether it is of those that small ones do not wait for.
        most: How many bytes it will have at most.
        seen: Its size when slow bodies were looked for last; None when it was not there, or waited.
        size: How many it has.
    """

    __slots__ = ("_budget", "_holds", "age", "give_up", "large", "most", "seen", "size")

    _ages = 0

    def __init__(self, budget: BodyBudget, most: int, give_up: Callable[[], None]) -> None:
        HeldBytes._ages += 1
        self.age = HeldBytes._ages
        self.give_up = give_up
        self.large = most > _SMALL_BYTES
        self.most = most
        self.seen: int | None = None
        self.size = 0
        self._budget = budget
        self._holds = 1

    def take(self, count: int) -> bool:
        """Have so many bytes more if they are free now and nobody of its kind waits; return whether it has them."""
        budget = self._budget
        return (self is budget._first or not budget._lanes[self.large]) and budget._give(self, count)

    async def wait(self, count: int) -> None:
        """Have so many bytes more when it is this body's turn."""
        budget = self._budget
        lane = budget._lanes[self.large]
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane[self] = came, count
        budget._let_in()
        if budget.waiting and budget._looking is None:
            budget._look_soon()
        try:
            await came
        finally:
            if lane.pop(self, None) is not None:
                budget._let_in()

    def came_whole(self) -> None:
        """Say that it needs no more."""
        budget = self._budget
        if self in budget._coming:
            del budget._coming[self]
            if self is budget._first:
                budget._first = None
            else:
                budget._count(self, -self.size)
            budget._let_in()

    def hold(self) -> None:
        """Keep them until `release` was called once more."""
        self._holds += 1

    def release(self) -> None:
        """Give up one hold; with the last, all that it has."""
        self._holds -= 1
        if self._holds:
            return
        budget = self._budget
        budget._lanes[self.large].pop(self, None)
        budget.held_bytes -= self.size
        self.came_whole()
        budget._let_in()
        if budget.held_bytes == 0:
            if budget._telling is not None:
                budget._telling.cancel()
            budget._telling = asyncio.get_running_loop().call_later(_EMPTY_S, budget._tell_if_empty)


_Waiter = tuple[asyncio.Future[None], int]
"""Done when a body that waits has so many bytes more."""
