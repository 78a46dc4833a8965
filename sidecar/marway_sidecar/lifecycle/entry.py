"""One version on this pod: its state, and how it is shown.

::

    absent ──▶ fetching ──▶ loading ──▶ ready ──▶ draining ──▶ absent
                   └───────────┴──▶ failed ──(after its pause, when somebody asks)──▶ fetching

`ready` with no workers is the middle tier: registered in the model server, 40 KiB, a worker's start from an answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from marway.errors import MarwayError
from marway.records import ServingSettings, VersionRecord
from marway.wire.pods import ModelStatus, State
from marway_sidecar.archives import ArchiveUse
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.errors import again
from marway_sidecar.lifecycle.scaling import Usage, bounds
from marway_sidecar.scheduler.job import Job
from marway_sidecar.scheduler.scheduler import Scheduler

__all__ = ["Entry", "Failure"]

_BACKOFF_MAX_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed load, remembered so that it is not tried with every request.

    Attributes:
        error: Why.
        count: How many failed in a row.
        retry_at: When it may be tried again, on the monotonic clock.
    """

    error: MarwayError
    count: int
    retry_at: float

    @classmethod
    def after(cls, before: Failure | None, error: MarwayError, *, backoff_s: float) -> Failure:
        """Return the failure that follows ``before``: its pause is twice as long, up to 300 s."""
        count = before.count + 1 if before is not None else 1
        pause = min(_BACKOFF_MAX_S, backoff_s * 2 ** min(count - 1, 16))
        return cls(again(error), count, time.monotonic() + pause)

    def wait_s(self) -> float:
        """Return in how many seconds it may be tried again."""
        return max(0.0, self.retry_at - time.monotonic())


@dataclass(eq=False)
class Entry:
    """What is known of one version; only its actor changes `state`, `served` and `workers`.

    Attributes:
        record, serving: The version, and how it is served now.
        scheduler, usage: Its queue and calls, and how many workers were of use.
        archive: Its archive, held in the store while it is registered.
        served: As the model server knows it, while it is registered.
        workers: Workers that it should have there.
        load_began: When the load under way began, on the monotonic clock.
        used_at: When it was last of use, on the monotonic clock.
        requested_at: When the last request came, in Unix time: it is only shown, and must read the same each time.
        asked_at: When anybody last wanted anything of it, on the monotonic clock.
        restores: How many model servers in a row went since it was loaded; 0 while it is, and when it is not to be
            loaded again by itself.
        settled_at: When its last transition ended, on the monotonic clock: what was seen before is out of date.
        failure: Why its last load failed; None when it did not.
        holds: How many hold it loaded, whoever else wants its memory.
    """

    record: VersionRecord
    serving: ServingSettings
    scheduler: Scheduler
    usage: Usage
    state: State = "absent"
    archive: ArchiveUse | None = None
    served: ServedModel | None = None
    workers: int = 0
    load_began: float | None = None
    load_duration_s: float | None = None
    used_at: float = field(default_factory=time.monotonic)
    requested_at: float | None = None
    asked_at: float = field(default_factory=time.monotonic)
    restores: int = 0
    settled_at: float = 0.0
    failure: Failure | None = None
    holds: int = 0

    @property
    def last_used_at(self) -> datetime | None:
        """When the last request came; None before the first."""
        return None if self.requested_at is None else datetime.fromtimestamp(self.requested_at, UTC)

    @property
    def key(self) -> str:
        """Its id: the key everywhere in the pool."""
        return self.record.id

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.record.name} {self.record.version}"

    @property
    def answers(self) -> bool:
        """Whether it is loaded with a worker."""
        return self.state == "ready" and self.workers > 0

    @property
    def idle(self) -> bool:
        """Whether nobody uses it, or is about to."""
        return self.scheduler.idle and not self.holds

    @property
    def fewest(self) -> int:
        """How many workers it keeps, while it is loaded, whatever others want."""
        return max(1, bounds(self.serving, cpus=1)[0])

    @property
    def retrying_later(self) -> bool:
        """Whether its last load failed and the pause is not over."""
        return self.failure is not None and self.failure.wait_s() > 0

    def finish(self, job: Job) -> None:
        """Let go of a job that was submitted: it is done, or its caller has left."""
        self.scheduler.leave(job)
        self.used_at = time.monotonic()

    def let_go(self) -> None:
        """Count it as not registered: its archive may go from disk."""
        self.served = None
        if self.archive is not None:
            self.archive.close()
            self.archive = None

    def status(self, memory_bytes: int) -> ModelStatus:
        """Return how it is shown."""
        failure = self.failure if self.state == "failed" else None
        return ModelStatus(
            id=self.record.id,
            name=self.record.name,
            version=self.record.version,
            state=self.state,
            workers=self.workers,
            requests_in_flight=self.scheduler.in_flight,
            requests_queued=self.scheduler.queued,
            memory_bytes=memory_bytes,
            pinned=self.serving.pinned,
            load_duration_s=self.load_duration_s,
            last_used_at=self.last_used_at,
            failures=self.failure.count if self.failure is not None else 0,
            failure=failure.error.message if failure is not None else None,
            retry_after_s=failure.wait_s() if failure is not None else None,
        )
