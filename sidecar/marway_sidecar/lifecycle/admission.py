"""How requests come in to a version: what they wait for, whether that is in vain, and what they are told if so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, Draining, MarwayError, ModelLoading, Overloaded, Unavailable
from marway.records import ServingSettings
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.errors import about, again
from marway_sidecar.lifecycle.entry import Entry
from marway_sidecar.lifecycle.transitions import Transitions
from marway_sidecar.scheduler.job import Job

__all__ = ["Admission", "refused"]


class Loader(Protocol):
    """What has the version loaded."""

    entry: Entry

    def want_load(self) -> None:
        """Have it loaded, with a worker up."""

    def lose(self) -> None:
        """Hear that the model server does not have it."""


class Admission:
    """A version as its scheduler sees it (`ScheduledVersion`).

    Args:
        actor: Has the version loaded.
        transitions: What loads are measured and bounded by.
        queue_grew: Told that somebody waits for it.
    """

    def __init__(self, actor: Loader, transitions: Transitions, *, queue_grew: Callable[[], None]) -> None:
        self._actor = actor
        self._do = transitions
        self.queue_grew = queue_grew

    def expected_s(self) -> float:
        """Return how long it should still take until it is loaded, by measured loads, in seconds."""
        began = self._actor.entry.load_began
        elapsed = time.monotonic() - began if began is not None else 0.0
        return max(0.0, self._do.estimates.load_s(self._actor.entry.key) - elapsed)

    def check_load(self, deadline: Deadline) -> None:
        """Return when it makes sense to wait for its load; a load that takes too long for that is begun all the same.

        Raises:
            LoadFailed: It failed, and its pause is not over.
            ModelLoading: The load will take longer than the deadline leaves.
            Draining: The pod stops.
        """
        entry = self._actor.entry
        if entry.state == "failed" and entry.retrying_later:
            assert entry.failure is not None
            raise again(entry.failure.error)
        if self._do.refusing and entry.load_began is None:
            raise about(entry.record, refused())
        expected_s = self.expected_s()
        if expected_s > deadline.remaining():
            self._actor.want_load()
            error = ModelLoading(
                f"{entry.title} is being loaded, which takes {expected_s:.1f} s more: longer than the deadline leaves",
                retry_after_s=expected_s,
            )
            raise about(entry.record, error)

    def load_late(self) -> MarwayError:
        """Return the error of who waited for its load until the deadline."""
        message = f"{self._actor.entry.title} is being loaded and was not ready within the deadline"
        return about(self._actor.entry.record, ModelLoading(message, retry_after_s=max(self.expected_s(), 1.0)))

    @property
    def serving(self) -> ServingSettings:
        return self._actor.entry.serving

    @property
    def served(self) -> ServedModel | None:
        return self._actor.entry.served

    def lose(self) -> None:
        self._actor.lose()

    def requested(self, job: Job) -> None:
        self._actor.entry.used_at, self._actor.entry.requested_at = job.since, time.time()

    def want_worker(self, deadline: Deadline) -> None:
        if not self._actor.entry.answers:
            self._do.metrics.cold_requests.inc()
            self.check_load(deadline)
            self._actor.want_load()

    def became_idle(self) -> None:
        self._do.memory.pump_if_short()

    def full(self) -> MarwayError:
        entry = self._actor.entry
        message = f"{self._do.settings.queue_limit} requests wait for {entry.title} already"
        retry_after_s = entry.scheduler.expected_wait_s() or self.expected_s()
        return about(entry.record, Overloaded(message, retry_after_s=retry_after_s))

    def late(self, since: float) -> MarwayError:
        entry = self._actor.entry
        if entry.answers:
            if entry.scheduler.last_end < since:
                entry.scheduler.breaker.failed()  # nothing moved while it waited: its workers hang
            return about(entry.record, DeadlineExceeded(f"{entry.title} was busy until the deadline had passed"))
        if self._do.memory.waits(entry.key):
            message = f"{entry.title} waits for memory that other versions are using"
            return about(entry.record, Unavailable(message, retry_after_s=self._do.estimates.load_s(entry.key)))
        return self.load_late()


def refused() -> Draining:
    """Return the error of who wants a load while the pod stops."""
    return Draining("this pod is stopping and loads nothing any more")
