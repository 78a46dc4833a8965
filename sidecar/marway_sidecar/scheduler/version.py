"""What the scheduler asks of the version that it serves, and tells it."""

from __future__ import annotations

from typing import Protocol

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.memory.budget import Memory

__all__ = ["ScheduledVersion"]


class ScheduledVersion(Protocol):
    """A version whose calls are scheduled."""

    record: VersionRecord
    serving: ServingSettings
    memory: Memory
    served: ServedModel | None
    """It as the model server knows it; None while it does not."""
    asked_at: float
    """When anybody last wanted anything of it, on the monotonic clock."""
    used_at: float
    """When it was last of use, on the monotonic clock."""
    requested_at: float | None
    """When the last request came that the breaker let through, in Unix time."""

    def lose(self) -> None:
        """Hear that the model server does not have it."""

    def queue_grew(self) -> None:
        """Hear that somebody waits."""

    def want_worker(self, deadline: Deadline) -> None:
        """Have it loaded with a worker, if it is not, for a job that has to wait.

        Raises:
            MarwayError: Waiting until the deadline is in vain.
        """

    def others_wait(self) -> bool:
        """Whether a request that gives way to nobody waits for a version of this pod that is ready."""

    def full(self) -> MarwayError:
        """Return the error of who finds no place in the queue, or has to go for others."""

    def late(self, since: float) -> MarwayError:
        """Return the error of who waited in vain from that moment until its deadline."""
