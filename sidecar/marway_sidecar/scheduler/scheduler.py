"""The gate of one version: who may have a call in its workers now, and who waits in which order.

TorchServe runs at batch size 1, so more calls than workers would only queue there, where they cannot leave. They wait
here, one group of callers after the other (`FairQueue`), also while the version is being loaded: then the gate has no
slots yet. When one becomes free, all work that waits next goes into one call, as far as the version's rows and bytes
of a batch allow; when several are, they share it.

Nobody waits for a batch to fill. But requests that have already come are read before a call is made: work that finds a
slot free starts when the event loop has nothing more to read, at most some turns later. Otherwise the first of many
that come together would go alone, and the others wait for its call to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway_sidecar.api.body_budget import HeldBytes
from marway_sidecar.lifecycle.failures import again
from marway_sidecar.scheduler.queue import FairQueue, QueueFull
from marway_sidecar.scheduler.work import Work

__all__ = ["Gate", "Slot"]

_SMOOTHING: Final = 0.2
_TURNS_MAX: Final = 16
"""So often a call that could be made lets the event loop read more: 1 to 2 ms when each turn brings a request."""


@dataclass(eq=False)
class _Waiter:
    """Who waits for a slot of his own, for a stream or a series of calls."""

    future: asyncio.Future[Slot]
    since: float
    group: str


@dataclass(eq=False)
class Slot:
    """The right to one call at a time. It is free again when its holder left *and* its calls ended."""

    gate: Gate
    taken_at: float = field(default_factory=time.monotonic)
    _holds: int = 1
    _bodies: list[HeldBytes] = field(default_factory=list)

    def keep(self, body: HeldBytes) -> None:
        """Hold a body's memory for as long as the slot is held."""
        body.hold()
        self._bodies.append(body)

    def hold(self) -> None:
        """Keep the slot until `release` was called once more: a call that goes on without its caller."""
        self._holds += 1

    def release(self) -> None:
        """Give up one hold."""
        self._holds -= 1
        if self._holds == 0:
            for body in self._bodies:
                body.release()
            self.gate._free(self)


class Gate:
    """Lets at most `slots` calls in, the others in their turn.

    Args:
        limit: How many may wait.
        batch: Returns the most rows and bytes of one call.
        run: Makes a call with work in a slot, and releases the slot when it has ended.
        waited: Told how long each call waited, in seconds, when it is let in.
        became_idle: Called when the last call ended and nobody waits.
        queued: Called when somebody starts to wait.
        full: Makes the error of who finds no place, or has to go for others.
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
        full: Callable[[], MarwayError],
    ) -> None:
        self._batch = batch
        self._run = run
        self._waited = waited
        self._became_idle = became_idle
        self._on_queued = queued
        self._full = full
        self._waiting: FairQueue[_Waiter | Work] = FairQueue(limit)
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
        self._ended: MarwayError | None = None
        self._due = False
        """Whether calls are about to be made; true whenever somebody waits while a slot is free."""

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def calls_queued(self) -> int:
        """How many calls it would take to serve all who wait, as far as batches are full."""
        return -(-len(self._waiting) // self._batch()[0]) if self._waiting else 0

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
        """Have ``work`` start at once if a slot is free and nobody waited for it before; return whether it will."""
        if self._due and self._waiting.full:
            self._dispatch()  # who may start needs no place
        if self.in_flight >= self.slots or (self._waiting and not self._due):
            return False
        self._push(work)
        self._dispatch_soon()
        return True

    def queue(self, work: Work) -> None:
        """Have ``work`` wait for its turn.

        Raises:
            MarwayError: What ``full`` gave: too many wait.
        """
        self._push(work)
        self._on_queued()

    def leave(self, work: Work) -> None:
        """Take ``work`` out of the queue if it is still there: its caller has left."""
        if not work.started:
            self._waiting.remove(work)
            self._tell_if_idle()

    def put_back(self, works: Sequence[Work]) -> None:
        """Have work wait first of all, which has to be sent again; who has left does not.

        When no call will ever be made here again, it is told so.
        """
        if self._ended is not None:
            for work in works:
                if not work.future.done():
                    work.future.set_exception(again(self._ended))
            return
        self._waiting.push_first([work for work in works if not work.future.done()])

    async def wait(self, deadline: Deadline, *, group: str, late: Callable[[float], MarwayError]) -> Slot:
        """Return a slot once it is this caller's turn.

        Args:
            deadline: When the caller leaves.
            group: Whose turn it is to be.
            late: Makes the error of that, from the moment the wait began.

        Raises:
            MarwayError: What ``full``, ``late`` or `fail` gave.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), time.monotonic(), group)
        self._push(waiter)

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
            else:
                self._waiting.remove(waiter)
            raise
        finally:
            timer.cancel()
            self._tell_if_idle()

    def oldest_wait_s(self) -> float:
        """Return how long who has waited longest has waited, in seconds."""
        return self._waiting.oldest_wait_s()

    def expected_wait_s(self) -> float | None:
        """Return how long one who came now would wait, by the measured service time; None when that is not known."""
        if self.service_s is None:
            return None
        return self.service_s * (self.in_flight + self.calls_queued) / max(1, self.slots)

    def open(self, slots: int) -> None:
        """Let so many calls in from now on."""
        if self._ended is not None:
            return
        self.slots = slots
        self._dispatch_soon()

    def close(self) -> None:
        """Let nobody in any more; who waits goes on waiting."""
        self.slots = 0

    def end(self, error: MarwayError) -> None:
        """Let nobody in any more, and tell everybody who waits, or comes back to wait; calls in flight go on."""
        self._ended = error
        self.slots = 0
        self.fail(error)

    async def drained(self) -> None:
        """Return once no call is in flight."""
        await self._empty.wait()

    def fail(self, error: MarwayError) -> None:
        """Tell everybody who waits that it is in vain."""
        for waiter in self._waiting.clear():
            if not waiter.future.done():
                waiter.future.set_exception(again(error))

    def take_peak(self) -> int:
        """Return the most calls that were wanted at once since the last time, and start over."""
        self._note_peak()
        peak, self.peak = self.peak, self.in_flight + self.calls_queued
        return peak

    def _push(self, waiter: _Waiter | Work) -> None:
        if self._ended is not None:
            raise again(self._ended)
        try:
            out = self._waiting.push(waiter)
        except QueueFull:
            raise self._full() from None
        if out is not None and not out.future.done():
            out.future.set_exception(self._full())

    def _take(self) -> Slot:
        self.in_flight += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight
        self._empty.clear()
        return Slot(self)

    def _free(self, slot: Slot) -> None:
        now = time.monotonic()
        took = now - slot.taken_at
        self.service_s = took if self.service_s is None else self.service_s + _SMOOTHING * (took - self.service_s)
        self.last_end = now
        self.in_flight -= 1
        self._dispatch_soon()
        if self.in_flight == 0:
            self._empty.set()
        self._tell_if_idle()

    def _dispatch_soon(self) -> None:
        """Make calls with what waits, once what has come is read."""
        if self._waiting and not self._due and self.in_flight < self.slots:
            self._due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._dispatch_if_read, loop, len(self._waiting), 1)

    def _dispatch_if_read(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        count = len(self._waiting)
        if seen < count < self._batch()[0] and turns < _TURNS_MAX:
            loop.call_soon(self._dispatch_if_read, loop, count, turns + 1)
            return
        self._due = False
        self._dispatch()
        if self._waiting:
            self._on_queued()

    def _dispatch(self) -> None:
        self._note_peak()  # between two calls the queue only grows
        while self._waiting and self.in_flight < self.slots:
            share = -(-len(self._waiting) // (self.slots - self.in_flight))
            waiter = self._waiting.pop()
            if waiter.future.done():
                continue  # its caller was cancelled and has not run yet
            now = time.monotonic()
            self._waited(now - waiter.since)
            if isinstance(waiter, Work):
                self._run(self._take(), [waiter, *self._company(waiter, now, share - 1)])
            else:
                waiter.future.set_result(self._take())

    def _company(self, first: Work, now: float, most: int) -> Iterator[Work]:
        """Take from the queue what goes into the same call as ``first``, at most so much work."""
        if first.alone:
            return
        rows, size = self._batch()
        rows, size = rows - len(first.rows), size - first.size_bytes
        waiting = self._waiting
        while rows > 0 and most > 0 and waiting:
            work = waiting.peek()
            if work.future.done():
                waiting.pop()
                continue
            if not isinstance(work, Work) or work.alone or len(work.rows) > rows or work.size_bytes > size:
                return
            waiting.pop()
            self._waited(now - work.since)
            rows, size, most = rows - len(work.rows), size - work.size_bytes, most - 1
            yield work

    def _note_peak(self) -> None:
        self.peak = max(self.peak, self.in_flight + self.calls_queued)

    def _tell_if_idle(self) -> None:
        if self.idle:
            self._became_idle()
