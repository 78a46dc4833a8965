"""Who may have a call in a version's workers now, and who waits in which order.

A worker takes one call at a time, so more calls than workers would only queue there, where they cannot leave. They wait
here, one group of callers after the other (`FairQueue`), also while the version is being loaded: then there are no
slots yet. When one becomes free, all jobs that wait next go into one call, as far as the version's rows and bytes of a
batch allow; when several are, they share it. A slot is free again when its call has ended, whoever still waits for it:
a worker finishes what it has begun even when the caller is gone. One that takes several calls at once is told to give
up the call of a caller that left.

Nobody waits for a batch to fill. But requests that have already come are read before a call is made: a job that finds a
slot free starts when the event loop has nothing more to read, at most some turns later. Otherwise the first of many
that come together would go alone, and the others wait for its call to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from marway.errors import DeadlineExceeded, MarwayError
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.errors import about, without_traceback
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.batching import BatchCaller, was_slow
from marway_sidecar.scheduler.breaker import Breaker
from marway_sidecar.scheduler.queue import FairQueue, FirstDeadline, Job, QueueFull, take_batch
from marway_sidecar.scheduler.spare import SpareJobs
from marway_sidecar.scheduler.version import ScheduledVersion
from marway_sidecar.settings import SidecarSettings

__all__ = ["Scheduler"]

_SMOOTHING: Final = 0.2
_TURNS_MAX: Final = 16
"""So often a call that could be made lets the event loop read more: 1 to 2 ms when each turn brings a request."""


class Scheduler:
    """Lets at most `slots` calls of a version run, and has the other jobs wait their turn."""

    def __init__(
        self, version: ScheduledVersion, server: ModelServer, settings: SidecarSettings, metrics: SidecarMetrics
    ) -> None:
        self.version = version
        self._server = server
        self._waited = metrics.queue_duration.observe
        self.breaker = Breaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s)
        self._caller = BatchCaller(version, server, self.breaker, metrics)
        self._calls: set[asyncio.Task[None]] = set()
        self.jobs: set[Job] = set()  # submitted, and not left
        self._own_calls: dict[Job, asyncio.Task[None]] = {}  # of workers that take several calls at once
        self._waiting: FairQueue[Job] = FairQueue(settings.queue_limit)
        self.spare = SpareJobs(version, self._dispatch_soon)
        self._empty = asyncio.Event()
        self._empty.set()
        self.slots = 0
        self.in_flight = 0
        self._peak = 0
        self.service_s: float | None = None
        """How long a call takes, in seconds, smoothed; None before the first ended."""
        self.last_end = 0.0
        """When a call ended last, on the monotonic clock."""
        self._ended: MarwayError | None = None
        self._due = False
        """Whether calls are about to be made; true whenever somebody waits while a slot is free."""
        self._first_deadline = FirstDeadline(self._expire)

    @property
    def queued(self) -> int:
        """How many jobs wait."""
        return self._waiting.count + len(self.spare.jobs)

    @property
    def held_up(self) -> bool:
        """Whether somebody waits who gives way to nobody, though calls may run."""
        return self._waiting.count > 0 and self.slots > 0

    @property
    def calls_queued(self) -> int:
        """How many calls it would take to serve all who wait, as far as batches are full."""
        return -(-self._waiting.count // self._batch_rows) if self._waiting.count else 0

    @property
    def idle(self) -> bool:
        """Whether no call is in flight and none waits."""
        return self.in_flight == 0 and not self.queued

    def submit(self, job: Job) -> None:
        """Have ``job`` done, after those that wait; whoever submitted it has to `leave` in the end.

        Raises:
            MarwayError: Calls keep failing, too many wait, or waiting is in vain; nothing was begun.
        """
        version = self.version
        version.asked_at = job.since
        if self.breaker.troubled:
            self.breaker.check(version.record)
        try:
            version.used_at, version.requested_at = job.since, time.time()
            if self._due and self._waiting.full:
                self._dispatch()  # who may start needs no place
            if self.in_flight < self.slots and (self._due or not self._waiting.count):
                self._push(job)
                self._dispatch_soon()
            else:
                if job.priority != "shadow":  # copies load nothing
                    version.want_worker(job.deadline)
                self._push(job)
                version.queue_grew()
        except BaseException:
            self.breaker.left()
            raise
        self.jobs.add(job)
        self._first_deadline.note(job.deadline.at)

    def leave(self, job: Job) -> None:
        """Let go of a job that was submitted: it is done, or its caller has left."""
        self.jobs.discard(job)
        call = self._own_calls.get(job)
        if call is not None and call is not asyncio.current_task():  # which it is that gives the answer
            job.future.cancel()
            call.cancel()
        if job.started_at is None:
            self._remove(job)
            self.breaker.left()
        self.version.used_at = time.monotonic()

    def oldest_wait_s(self) -> float:
        """Return how long who has waited longest has waited, in seconds."""
        return self._waiting.oldest_wait_s()

    def expected_wait_s(self) -> float | None:
        """Return how long one who came now would wait, by the measured service time; None when that is not known."""
        if self.service_s is None:
            return None
        return self.service_s * (self.in_flight + self.calls_queued) / max(1, self.slots)

    def open(self, slots: int) -> None:
        """Let so many calls run from now on."""
        if self._ended is None:
            self.slots = slots
            self._dispatch_soon()

    def close(self) -> None:
        """Begin no call any more; who waits goes on waiting."""
        self.slots = 0

    def end(self, error: MarwayError) -> None:
        """Begin no call any more, and tell everybody who waits, or comes back to wait; calls in flight go on."""
        self._ended = error
        self.slots = 0
        self.fail(error)

    def fail(self, error: MarwayError) -> None:
        """Tell everybody who waits that it is in vain."""
        self.spare.fail(error)
        for job in self._waiting.clear():
            job.fail(error)

    async def drained(self) -> None:
        """Return once no call is in flight."""
        await self._empty.wait()

    def take_peak(self) -> int:
        """Return the most calls that were wanted at once since the last time, and start over."""
        self._note_peak()
        peak, self._peak = self._peak, self._wanted_now
        return peak

    @property
    def _batch_rows(self) -> int:
        model = self.version.served
        if not self._server.batches or (model is not None and model.calls_per_worker > 1):
            return 1
        return self.version.serving.max_batch_rows

    def _push(self, job: Job) -> None:
        if self._ended is not None:
            raise without_traceback(self._ended)
        if job.priority is not None:
            self.spare.push(job, ready=self.slots > 0)
            return
        try:
            out = self._waiting.push(job)
        except QueueFull:
            raise self.version.full() from None
        if out is not None:
            out.fail(self.version.full())

    def _remove(self, job: Job) -> None:
        """Take a job out of the queue, if it is there."""
        self._waiting.remove(job)
        self.spare.remove(job)
        if self.version.memory.short and self.idle:
            self.version.memory.pump()

    def _dispatch_soon(self) -> None:
        """Make calls with what waits, once what has come is read."""
        if self.queued and not self._due and self.in_flight < self.slots:
            self._due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._dispatch_if_read, loop, self._waiting.count, 1)

    def _dispatch_if_read(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        count = self._waiting.count
        if seen < count < self._batch_rows and turns < _TURNS_MAX:
            loop.call_soon(self._dispatch_if_read, loop, count, turns + 1)
            return
        self._due = False
        self._dispatch()
        if self._waiting.count:
            self.version.queue_grew()

    def _dispatch(self) -> None:
        self._note_peak()  # between two calls the queue only grows
        rows, size = self._batch_rows, self.version.serving.max_batch_bytes
        while self._waiting.count and self.in_flight < self.slots and (model := self.version.served) is not None:
            share = -(-self._waiting.count // (self.slots - self.in_flight))
            if jobs := take_batch(self._waiting, share, rows, size, self._waited):
                self._start(model, jobs)
        while (
            self.spare.jobs and (model := self.version.served) and (job := self.spare.next(self.slots, self.in_flight))
        ):
            self._start(model, [job])

    def _start(self, model: ServedModel, jobs: Sequence[Job]) -> None:
        """Take a slot and begin a call in it."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight - self.spare.running)
        self._empty.clear()
        for job in jobs:
            if job.body is not None:
                job.body.hold()
        call = asyncio.create_task(self._call(model, jobs), name="predict")
        self._calls.add(call)
        if model.calls_per_worker > 1:
            self._own_calls.update(dict.fromkeys(jobs, call))
        call.add_done_callback(self._calls.discard)

    async def _call(self, model: ServedModel, jobs: Sequence[Job]) -> None:
        """Make a call and free its slot: the one place where slots end."""
        began = time.monotonic()
        try:
            back = await self._caller.call(model, jobs)
            if self._ended is not None:
                for job in back:
                    job.fail(self._ended)  # no call will ever be made here again
            elif jobs[0].priority is None:
                self._waiting.push_first([job for job in back if not job.future.done()])
            elif back:
                self.spare.push_first(back[0])  # such a job is alone in its call
        finally:
            for job in jobs:
                self._own_calls.pop(job, None)
                if job.body is not None:
                    job.body.release()
            self.last_end = time.monotonic()
            took = self.last_end - began
            self.service_s = took if self.service_s is None else self.service_s + _SMOOTHING * (took - self.service_s)
            self.in_flight -= 1
            self.spare.running -= jobs[0].priority is not None
            self._dispatch_soon()
            if self.in_flight == 0:
                self._empty.set()
                if self.version.memory.short and not self._waiting.count:
                    self.version.memory.pump()

    def _note_peak(self) -> None:
        self._peak = max(self._peak, self._wanted_now)

    @property
    def _wanted_now(self) -> int:
        return self.in_flight - self.spare.running + self.calls_queued  # for what gives way nobody scales

    def _expire(self) -> None:
        """Tell the callers of jobs whose deadline has passed."""
        now = time.monotonic()
        for job in self.jobs:
            if job.deadline.at > now or job.future.done():
                continue
            if job.started_at is None:
                job.fail(self.version.late(job.since))
                self._remove(job)
                continue
            if was_slow(job.started_at, self.service_s):
                self.breaker.failed()  # far slower than usual: not just a caller in a hurry
            record = self.version.record
            message = f"{record.name} {record.version} did not answer within the deadline"
            job.fail(about(record, DeadlineExceeded(message)))
        first = min((job.deadline.at for job in self.jobs if not job.future.done()), default=None)
        if first is not None:
            self._first_deadline.note(first)
