"""The gate of one version: who may have a call in its workers now, and who waits in which order.

TorchServe runs at batch size 1, so more calls than workers would only queue there, where they cannot leave. They wait
here, in the order they came, also while the version is being loaded: then the gate has no slots yet. When one becomes
free, all work that waits next goes into one call, as far as the version's rows and bytes of a batch allow.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway_sidecar.pool.failures import again
from marway_sidecar.pool.work import Work

__all__ = ["Gate", "QueueFull", "Slot"]

_SMOOTHING: Final = 0.2


class QueueFull(Exception):
    """As many wait as may."""


@dataclass(eq=False)
class _Waiter:
    """Who waits for a slot of his own, for a stream or a series of calls."""

    future: asyncio.Future[Slot]
    since: float


@dataclass(eq=False)
class Slot:
    """The right to one call at a time. It is free again when its holder left *and* its calls ended."""

    gate: Gate
    taken_at: float = field(default_factory=time.monotonic)
    _holds: int = 1

    def hold(self) -> None:
        """Keep the slot until `release` was called once more: a call that goes on without its caller."""
        self._holds += 1

    def release(self) -> None:
        """Give up one hold."""
        self._holds -= 1
        if self._holds == 0:
            self.gate._free(self)


class Gate:
    """Lets at most `slots` calls in, the others in the order they came.

    Args:
        limit: How many may wait.
        batch: Returns the most rows and bytes of one call.
        run: Makes a call with work in a slot, and releases the slot when it has ended.
        waited: Told how long each call waited, in seconds, when it is let in.
        became_idle: Called when the last call ended and nobody waits.
        queued: Called when somebody starts to wait.
    """

    def __init__(
        self,
        *,
        limit: int,
        batch: Callable[[], tuple[int, int]],
        run: Callable[[Slot, Sequence[Work]], None],
        waited: Callable[[float], None],
        became_idle: Callable[[], None],
        queued: Callable[[], None],
    ) -> None:
        self._limit = limit
        self._batch = batch
        self._run = run
        self._waited = waited
        self._became_idle = became_idle
        self._on_queued = queued
        self._waiting: deque[_Waiter | Work] = deque()
        self._empty = asyncio.Event()
        self._empty.set()
        self.slots = 0
        self.in_flight = 0
        self.peak = 0
        """Most calls wanted at once since `take_peak`."""
        self.service_s: float | None = None
        """How long a call takes, in seconds, smoothed; None before the first ended."""
        self.last_end = 0.0
        """When a call ended last, on the monotonic clock."""

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def calls_queued(self) -> int:
        """How many calls it would take to serve all who wait, as far as batches are full."""
        return math.ceil(len(self._waiting) / self._batch()[0])

    @property
    def idle(self) -> bool:
        """Whether no call is in flight and none waits."""
        return self.in_flight == 0 and not self._waiting

    def enter(self) -> Slot | None:
        """Return a slot if one is free now and nobody waits for it."""
        if self.in_flight < self.slots and not self._waiting:
            self._waited(0.0)
            return self._take()
        return None

    def submit(self, work: Work) -> bool:
        """Start ``work`` if a slot is free now and nobody waits for it; return whether it was."""
        if self.in_flight < self.slots and not self._waiting:
            self._waited(0.0)
            self._run(self._take(), [work])
            return True
        return False

    def queue(self, work: Work) -> None:
        """Have ``work`` wait for its turn.

        Raises:
            QueueFull: Too many wait.
        """
        if len(self._waiting) >= self._limit:
            raise QueueFull
        self._waiting.append(work)
        self._note_peak()
        self._on_queued()

    def leave(self, work: Work) -> None:
        """Take ``work`` out of the queue if it is still there: its caller has left."""
        if not work.started:
            with contextlib.suppress(ValueError):
                self._waiting.remove(work)
            self._tell_if_idle()

    def put_back(self, works: Sequence[Work]) -> None:
        """Have work wait first of all, which has to be sent again; who has left does not."""
        self._waiting.extendleft(work for work in reversed(works) if not work.future.done())

    async def wait(self, deadline: Deadline, *, late: Callable[[float], MarwayError]) -> Slot:
        """Return a slot once it is this caller's turn.

        Args:
            deadline: When the caller leaves.
            late: Makes the error of that, from the moment the wait began.

        Raises:
            QueueFull: Too many wait.
            MarwayError: What ``late`` or `fail` gave.
        """
        if len(self._waiting) >= self._limit:
            raise QueueFull
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), time.monotonic())
        self._waiting.append(waiter)
        self._note_peak()

        def leave() -> None:
            if not waiter.future.done():
                self._waiting.remove(waiter)
                waiter.future.set_exception(late(waiter.since))

        timer = loop.call_later(max(0.0, deadline.remaining()), leave)
        try:
            self._on_queued()
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                waiter.future.result().release()  # its turn came in the moment that it left
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise
        finally:
            timer.cancel()
            self._tell_if_idle()

    def oldest_wait_s(self) -> float:
        """Return how long the first in the queue has waited, in seconds."""
        return time.monotonic() - self._waiting[0].since if self._waiting else 0.0

    def expected_wait_s(self) -> float | None:
        """Return how long one who came now would wait, by the measured service time; None when that is not known."""
        if self.service_s is None:
            return None
        return self.service_s * (self.in_flight + self.calls_queued) / max(1, self.slots)

    def open(self, slots: int) -> None:
        """Let so many calls in from now on."""
        self.slots = slots
        self._dispatch()

    def close(self) -> None:
        """Let nobody in any more; who waits goes on waiting."""
        self.slots = 0

    async def drained(self) -> None:
        """Return once no call is in flight."""
        await self._empty.wait()

    def fail(self, error: MarwayError) -> None:
        """Tell everybody who waits that it is in vain."""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(again(error))

    def take_peak(self) -> int:
        """Return the most calls that were wanted at once since the last time, and start over."""
        peak, self.peak = self.peak, self.in_flight + self.calls_queued
        return peak

    def _take(self) -> Slot:
        self.in_flight += 1
        self._empty.clear()
        self._note_peak()
        return Slot(self)

    def _free(self, slot: Slot) -> None:
        now = time.monotonic()
        took = now - slot.taken_at
        self.service_s = took if self.service_s is None else self.service_s + _SMOOTHING * (took - self.service_s)
        self.last_end = now
        self.in_flight -= 1
        self._dispatch()
        if self.in_flight == 0:
            self._empty.set()
        self._tell_if_idle()

    def _dispatch(self) -> None:
        while self._waiting and self.in_flight < self.slots:
            waiter = self._waiting.popleft()
            if waiter.future.done():
                continue  # its caller was cancelled and has not run yet
            self._waited(time.monotonic() - waiter.since)
            if isinstance(waiter, Work):
                self._run(self._take(), [waiter, *self._company(waiter)])
            else:
                waiter.future.set_result(self._take())

    def _company(self, first: Work) -> Iterator[Work]:
        """Take from the queue what goes into the same call as ``first``."""
        if first.alone:
            return
        rows, size = self._batch()
        rows, size = rows - len(first.rows), size - first.size_bytes
        while self._waiting:
            work = self._waiting[0]
            if work.future.done():
                self._waiting.popleft()
                continue
            if not isinstance(work, Work) or work.alone or len(work.rows) > rows or work.size_bytes > size:
                return
            self._waiting.popleft()
            self._waited(time.monotonic() - work.since)
            rows, size = rows - len(work.rows), size - work.size_bytes
            yield work

    def _note_peak(self) -> None:
        self.peak = max(self.peak, self.in_flight + self.calls_queued)

    def _tell_if_idle(self) -> None:
        if self.idle:
            self._became_idle()
