"""The rows of a request, and who waits for a version: one group of callers after the other.

The next is taken from each group in turn (round robin), within a group in the order of coming. So a group that sends a
thousand requests at once delays another's single one by one turn, not by a thousand. When all places are taken, the
group that holds the most gives up its last one to a group that holds at least two fewer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.wire.envelope import Answer, Row
from marway_http.eager import InlineFuture
from marway_sidecar.errors import without_traceback
from marway_sidecar.memory.body_budget import HeldBytes

__all__ = ["FairQueue", "FirstDeadline", "Job", "QueueFull", "take_batch"]


class Job:
    """The rows of one request, which travel together.

    Args:
        rows: At least one, none that streams.
        deadline: When its caller leaves.
        group: Whose it is: groups take turns in a queue.
        body: Memory that is held for it, and by every call with it.
        priority: One of `marway.wire.headers.PRIORITIES` where it gives way to all others; None where it does not.

    Attributes:
        size_bytes: Of all values.
        future: The answers, in the order of the rows, or why there are none; done too when its caller has left.
        since: When it came, on the monotonic clock.
        started_at: When the model server was given it last; None while it waits.
        alone: Whether each row has to go by itself: one asks for an explanation, or a call that held others went wrong.
        batch_rows: Rows of the call of the model server that it was in last, its own among them; 0 before.
        lost: How often the model server did not have the version when it was asked.
    """

    __slots__ = (
        *("alone", "batch_rows", "body", "deadline", "future", "group", "lost", "priority", "rows", "since"),
        *("size_bytes", "started_at"),
    )

    def __init__(
        self,
        rows: Sequence[Row],
        deadline: Deadline,
        *,
        group: str = "",
        body: HeldBytes | None = None,
        priority: str | None = None,
    ) -> None:
        self.rows = rows
        self.priority = priority
        self.deadline = deadline
        self.group = group
        self.body = body
        self.future: InlineFuture[list[Answer]] = InlineFuture()
        self.since = time.monotonic()
        self.started_at: float | None = None
        self.batch_rows = 0
        self.lost = 0
        self.size_bytes = 0
        self.alone = False
        for row in rows:
            for part in row.parts:
                self.size_bytes += len(part.value)
            if row.explains:
                self.alone = True  # handlers look at the first row of a call to know

    @property
    def started(self) -> bool:
        """Whether the model server was given it."""
        return self.started_at is not None

    def answer(self, answers: list[Answer]) -> None:
        """Give the caller its answers, if it is still there."""
        if not self.future.done():
            self.future.set_result(answers)

    def fail(self, error: Exception) -> None:
        """Tell the caller why it gets none, if it is still there."""
        if not self.future.done():
            self.future.set_exception(without_traceback(error) if isinstance(error, MarwayError) else error)


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

    Attributes:
        count: How many do.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count = 0
        self._first: deque[W] = deque()
        self._groups: dict[str, deque[W]] = {}
        self._turns: deque[str] = deque()

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self.count >= self._limit

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
        self.count += 1
        return out

    def push_first(self, items: Iterable[W]) -> None:
        """Put back who was taken, in this order, before all others; whether there is a place or not."""
        back = list(items)
        self._first.extendleft(reversed(back))
        self.count += len(back)

    def peek(self) -> W:
        """Return who is next."""
        return self._first[0] if self._first else self._groups[self._turns[0]][0]

    def pop(self) -> W:
        """Take who is next."""
        self.count -= 1
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
        self.count -= 1

    def clear(self) -> list[W]:
        """Take all."""
        return [self.pop() for _ in range(self.count)]

    def oldest_wait_s(self) -> float:
        """Return how long who has waited longest has waited, in seconds; 0 when nobody waits."""
        if not self.count:
            return 0.0
        fronts = [line[0].since for line in (self._first, *self._groups.values()) if line]
        return time.monotonic() - min(fronts)

    def _make_room(self, item: W) -> W:
        longest = max(self._groups.values(), key=len, default=None)
        if longest is None or len(longest) < len(self._groups.get(item.group, ())) + 2:
            raise QueueFull
        self.count -= 1
        return longest.pop()


def take_batch(
    queue: FairQueue[Job], most: int, rows: int, size_bytes: int, waited: Callable[[float], object]
) -> list[Job]:
    """Take from the queue what goes into one call: at most so many jobs, rows and bytes, but one in any case.

    Each is begun with that; ``waited`` is told how many seconds it waited. None come of jobs whose callers have left.
    """
    jobs: list[Job] = []
    now = time.monotonic()
    while queue.count and most > 0:
        job = queue.peek()
        if not job.future.done():  # else its caller was cancelled and has not run yet
            if jobs and (job.alone or len(job.rows) > rows or job.size_bytes > size_bytes):
                break
            waited(now - job.since)
            job.started_at = now
            jobs.append(job)
            rows, size_bytes, most = rows - len(job.rows), size_bytes - job.size_bytes, most - 1
            if job.alone or rows <= 0:
                most = 0
        queue.pop()
    return jobs


class FirstDeadline:
    """Calls ``passed`` when the earliest of the deadlines that were noted is over; all others are noted again then.

    One timer for all, as most jobs end long before their deadline.
    """

    def __init__(self, passed: Callable[[], None]) -> None:
        self._passed = passed
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def note(self, at: float) -> None:
        """Take in a deadline, on the monotonic clock."""
        if at >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer, self._at = None, math.inf
        self._passed()
