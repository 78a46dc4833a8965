"""What the scheduler asks of the version that it serves, and tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.records import ServingSettings, VersionRecord
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.scheduler.job import Job

__all__ = ["ScheduledVersion"]


class ScheduledVersion(Protocol):
    """A version whose calls are scheduled."""

    record: VersionRecord
    serving: ServingSettings
    served: ServedModel | None
    """It as the model server knows it; None while it does not."""
    lose: Callable[[], None]
    """Told that the model server does not have it."""
    queue_grew: Callable[[], None]
    """Told that somebody waits."""

    def requested(self, job: Job) -> None:
        """Hear of a job that the breaker lets through."""

    def want_worker(self, deadline: Deadline) -> None:
        """Have it loaded with a worker, if it is not, for a job that has to wait.

        Raises:
            MarwayError: Waiting until the deadline is in vain.
        """

    def became_idle(self) -> None:
        """Hear that the last call ended and nobody waits."""

    def full(self) -> MarwayError:
        """Return the error of who finds no place in the queue, or has to go for others."""

    def late(self, since: float) -> MarwayError:
        """Return the error of who waited in vain from that moment until its deadline."""
