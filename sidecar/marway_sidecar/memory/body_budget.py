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
from typing import Final

__all__ = ["BodyBudget", "HeldBytes"]

_SMALL_BYTES: Final = 1024 * 1024
"""Bodies up to here have a quarter of the memory for themselves: a gateway has them whole before it sends them."""
_SLOW_BYTES: Final = 64 * 1024
_LOOK_S: Final = 1.0
"""How often slow bodies are looked for while somebody waits."""
_EMPTY_S: Final = 5.0


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
        self._small_waiting: dict[HeldBytes, _Waiter] = {}
        self._large_waiting: dict[HeldBytes, _Waiter] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._emptied = emptied
        self._empty_since = 0.0
        self._told: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many bodies wait to be read on."""
        return len(self._small_waiting) + len(self._large_waiting)

    def open(self, most: int, give_up: Callable[[], None]) -> HeldBytes:
        """Return the memory of a body that begins to come, none yet; `release` ends it.

        Args:
            most: How many bytes it has at most.
            give_up: Called when it has to go, because it comes too slowly for those who wait.
        """
        body = HeldBytes(self, most, give_up)
        self._coming[body] = None
        return body

    # -- for the bodies ------------------------------------------------------------------------------------

    def _take(self, body: HeldBytes, count: int) -> bool:
        """Give ``body`` so many bytes more if nobody of its kind waits and there is room, or if it is the first."""
        return (body is self._first or not self._lane(body)) and self._give(body, count)

    def _wait(self, body: HeldBytes, count: int) -> asyncio.Future[None]:
        """Return what is done when ``body`` was given so many bytes more."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), count)
        self._lane(body)[body] = waiter
        self._let_in()
        if self.waiting and self._looking is None:
            self._note_progress()
            self._looking = loop.call_later(_LOOK_S, self._look)
        return waiter.came

    def _leave(self, body: HeldBytes) -> None:
        """Have ``body`` wait no more."""
        if self._lane(body).pop(body, None) is not None:
            self._let_in()

    def _came_whole(self, body: HeldBytes) -> None:
        """Take in that ``body`` needs no more."""
        if body in self._coming:
            del self._coming[body]
            if body is self._first:
                self._first = None
            else:
                self._count(body, -body.size)
            self._let_in()

    def _end(self, body: HeldBytes) -> None:
        """Take back all that ``body`` has."""
        self._lane(body).pop(body, None)
        self.held_bytes -= body.size
        if body in self._coming:
            self._came_whole(body)
        else:
            self._let_in()
        if self.held_bytes == 0:
            self._note_empty()

    # -- who gets what -------------------------------------------------------------------------------------

    def _lane(self, body: HeldBytes) -> dict[HeldBytes, _Waiter]:
        return self._small_waiting if body.most <= _SMALL_BYTES else self._large_waiting

    def _give(self, body: HeldBytes, count: int) -> bool:
        first = self._first
        if body is not first:
            promised = first.most - first.size if first is not None else 0
            large = body.most > _SMALL_BYTES
            if (
                self.held_bytes + promised + count <= self._limit_bytes
                and self._coming_bytes + count <= self._coming_limit_bytes
                and (not large or self._large_bytes + count <= self._large_limit_bytes)
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
        if body.most > _SMALL_BYTES:
            self._large_bytes += count

    def _let_in(self) -> None:
        """Give memory to those who wait, of each kind the one that came first."""
        blocked = False
        while not blocked:
            blocked = True
            heads = [min(lane, key=_age) for lane in (self._small_waiting, self._large_waiting) if lane]
            for body in sorted(heads, key=_age):
                lane = self._lane(body)
                came, count = lane[body].came, lane[body].count
                if not came.done() and not self._give(body, count):
                    continue
                del lane[body]
                if not came.done():
                    body.seen = None
                    came.set_result(None)
                blocked = False
                break

    # -- time ----------------------------------------------------------------------------------------------

    def _note_progress(self) -> None:
        for body in self._coming:
            body.seen = body.size

    def _look(self) -> None:
        """End slow bodies, the largest first, as far as their memory is wanted."""
        self._looking = None
        waiting = {**self._small_waiting, **self._large_waiting}
        if not waiting:
            return
        wanted = sum(waiter.count for waiter in waiting.values())
        slow = [
            body
            for body in self._coming
            if body.size and body.seen is not None and body.size - body.seen < _SLOW_BYTES and body not in waiting
        ]
        for body in sorted(slow, key=_size, reverse=True):
            if wanted <= 0:
                break
            wanted -= body.size
            body.give_up()
        self._note_progress()
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _note_empty(self) -> None:
        loop = asyncio.get_running_loop()
        self._empty_since = loop.time()
        if self._told is None:
            self._told = loop.call_later(_EMPTY_S, self._tell_empty, loop)

    def _tell_empty(self, loop: asyncio.AbstractEventLoop) -> None:
        self._told = None
        if self.held_bytes:
            return  # the next end tells
        left = self._empty_since + _EMPTY_S - loop.time()
        if left > 0:
            self._told = loop.call_later(left, self._tell_empty, loop)
        else:
            self._emptied()


class _Waiter:
    """A body that waits for memory."""

    __slots__ = ("came", "count")

    def __init__(self, came: asyncio.Future[None], count: int) -> None:
        self.came = came
        self.count = count


class HeldBytes:
    """The memory of one body, until its request and every call with it have ended.

    Attributes:
        age: The lower, the earlier it began to come.
        give_up: Ends it from outside.
        most: How many bytes it will have at most.
        seen: Its size when slow bodies were looked for last; None when it was not there, or waited.
        size: How many it has.
    """

    __slots__ = ("_budget", "_holds", "age", "give_up", "most", "seen", "size")

    _ages = 0

    def __init__(self, budget: BodyBudget, most: int, give_up: Callable[[], None]) -> None:
        HeldBytes._ages += 1
        self.age = HeldBytes._ages
        self.give_up = give_up
        self.most = most
        self.seen: int | None = None
        self.size = 0
        self._budget = budget
        self._holds = 1

    def take(self, count: int) -> bool:
        """Have so many bytes more if they are free now; return whether they were."""
        return self._budget._take(self, count)

    async def wait(self, count: int) -> None:
        """Have so many bytes more when it is this body's turn."""
        came = self._budget._wait(self, count)
        try:
            await came
        finally:
            self._budget._leave(self)

    def came_whole(self) -> None:
        """Say that it needs no more."""
        self._budget._came_whole(self)

    def hold(self) -> None:
        """Keep them until `release` was called once more."""
        self._holds += 1

    def release(self) -> None:
        """Give up one hold."""
        self._holds -= 1
        if self._holds == 0:
            self._budget._end(self)


def _age(body: HeldBytes) -> int:
    return body.age


def _size(body: HeldBytes) -> int:
    return body.size
