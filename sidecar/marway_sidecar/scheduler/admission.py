"""How requests come in: to a worker that is free, into the queue, or to a load; and what they are told if not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, Draining, MarwayError, ModelLoading, Overloaded, Unavailable
from marway_sidecar.lifecycle.actor import Actor
from marway_sidecar.lifecycle.failures import about, again
from marway_sidecar.memory.budget import Memory
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.batching import was_slow
from marway_sidecar.scheduler.scheduler import Slot
from marway_sidecar.scheduler.work import Work
from marway_sidecar.settings import SidecarSettings

__all__ = ["Entrance"]


class Entrance:
    """Lets requests in to versions.

    Args:
        memory: Says what a load waits for.
        estimates: Say how long loads take.
        settings: How many may wait.
        metrics: Where requests are counted that find their version not loaded.
        refusing: Whether loads are refused, because the pod stops.
    """

    def __init__(
        self,
        memory: Memory,
        estimates: Estimates,
        settings: SidecarSettings,
        metrics: SidecarMetrics,
        *,
        refusing: Callable[[], bool],
    ) -> None:
        self._memory = memory
        self._estimates = estimates
        self._settings = settings
        self._cold = metrics.cold_requests
        self._refusing = refusing
        self._open: dict[Work, Actor] = {}
        self._look_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, actor: Actor, deadline: Deadline, *, group: str = "") -> Slot:
        """Return a slot of a version that is loaded, loading it first if need be.

        Raises:
            MarwayError: As `ModelPool.lease`.
        """
        entry = actor.entry
        slot = entry.gate.enter()
        if slot is not None:
            return slot
        if not (entry.state == "ready" and entry.workers):
            self._cold.inc()
            self.check_load(actor, deadline)
            actor.want_load()
        return await entry.gate.wait(deadline, group=group, late=lambda since: self._late(actor, since))

    def begin(self, actor: Actor, work: Work) -> None:
        """Have ``work`` done, loading the version and waiting in its queue first if need be; then it has to `end`.

        Raises:
            MarwayError: As `ModelPool.begin`.
        """
        entry = actor.entry
        if not entry.gate.submit(work):
            if not (entry.state == "ready" and entry.workers):
                self._cold.inc()
                self.check_load(actor, work.deadline)
                actor.want_load()
            entry.gate.queue(work)
        self._open[work] = actor
        if work.deadline.at < self._look_at:
            self._look_in(work.deadline.remaining())

    def end(self, actor: Actor, work: Work) -> None:
        """Let go of work that was begun: it is done, or its caller has left."""
        del self._open[work]
        actor.entry.gate.leave(work)

    def check_load(self, actor: Actor, deadline: Deadline) -> None:
        """Return when it makes sense to wait for a version that is not loaded; its load is begun in any case.

        Raises:
            LoadFailed: It failed, and its pause is not over.
            ModelLoading: The load will take longer than the deadline leaves.
            Draining: The pod stops.
        """
        entry = actor.entry
        if entry.state == "failed" and entry.retrying_later:
            assert entry.failure is not None
            raise again(entry.failure.error)
        if self._refusing() and entry.load_began is None:
            raise about(entry.record, Draining("this pod is stopping and loads nothing any more"))
        expected = self.expected_s(actor)
        if expected > deadline.remaining():
            actor.want_load()
            error = ModelLoading(
                f"{entry.title} is being loaded, which takes {expected:.1f} s more: longer than the deadline leaves",
                retry_after_s=expected,
            )
            raise about(entry.record, error)

    def expected_s(self, actor: Actor) -> float:
        """Return how long a version that is not loaded should still take, by measured loads, in seconds."""
        entry = actor.entry
        elapsed = time.monotonic() - entry.load_began if entry.load_began is not None else 0.0
        return max(0.0, self._estimates.load_s(entry.key) - elapsed)

    def _look_in(self, within_s: float) -> None:
        """Look for passed deadlines in so many seconds: one timer for all, as most requests end long before theirs."""
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = time.monotonic() + within_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, within_s), self._look)

    def _look(self) -> None:
        self._timer, self._look_at = None, math.inf
        now = time.monotonic()
        for work, actor in self._open.items():
            if work.deadline.at <= now:
                self._leave(actor, work)
        first = min((work.deadline.at for work in self._open if not work.future.done()), default=None)
        if first is not None:
            self._look_in(first - now)

    def _leave(self, actor: Actor, work: Work) -> None:
        """Tell the caller of a work whose deadline has passed."""
        if work.future.done():
            return
        entry = actor.entry
        if work.started_at is not None:
            if was_slow(work.started_at, entry.gate.service_s):
                entry.breaker.failed()
            late: MarwayError = DeadlineExceeded(f"{entry.title} did not answer within the deadline")
            work.future.set_exception(about(entry.record, late))
        else:
            work.future.set_exception(self._late(actor, work.since))
            entry.gate.leave(work)

    def full(self, actor: Actor) -> Overloaded:
        """Return the error of who finds no place in a version's queue."""
        entry = actor.entry
        return Overloaded(
            f"{self._settings.queue_limit} requests wait for {entry.title} already",
            model=entry.record.name,
            version=entry.record.version,
            retry_after_s=entry.gate.expected_wait_s() or self.expected_s(actor),
        )

    def _late(self, actor: Actor, since: float) -> MarwayError:
        entry = actor.entry
        if entry.state == "ready" and entry.workers:
            if entry.gate.last_end < since:
                entry.breaker.failed()  # nothing moved while it waited: its workers hang
            return about(entry.record, DeadlineExceeded(f"{entry.title} was busy until the deadline had passed"))
        if self._memory.waits(entry.key):
            return about(
                entry.record,
                Unavailable(
                    f"{entry.title} waits for memory that other versions are using",
                    retry_after_s=self._estimates.load_s(entry.key),
                ),
            )
        return about(
            entry.record,
            ModelLoading(
                f"{entry.title} is being loaded and was not ready within the deadline",
                retry_after_s=max(self.expected_s(actor), 1.0),
            ),
        )
