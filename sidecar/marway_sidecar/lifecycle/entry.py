"""One version on this pod: its state, and how it is shown.

::

    absent ──▶ fetching ──▶ loading ──▶ ready ──▶ draining ──▶ absent
                   └───────────┴──▶ failed ──(after its pause, when somebody asks)──▶ fetching

`ready` with no workers is the middle tier: registered in the model server, 40 KiB, a worker's start from an answer.
Where workers share their weights these are kept meanwhile, and the version is parked: a fork from an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from weakref import WeakSet

from marway.archive_store import ArchiveUse
from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, Draining, MarwayError, ModelLoading, Overloaded, Unavailable
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire.pods import ModelStatus, State, UnloadReason
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.changes import Changes
from marway_sidecar.errors import about, without_traceback
from marway_sidecar.lifecycle.scaling import Usage, bounds
from marway_sidecar.memory.budget import Memory
from marway_sidecar.memory.estimates import Estimates
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler.scheduler import Scheduler
from marway_sidecar.scheduler.sequences import SequenceScheduler
from marway_sidecar.settings import SidecarSettings

__all__ = ["Context", "Entry", "Failure", "refused"]

_BACKOFF_MAX_S: Final = 300.0
_FORK_S: Final = 0.05
"""How long a parked version takes until it has a worker (`make bench-weights`)."""


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
        return cls(without_traceback(error), count, time.monotonic() + pause)

    def wait_s(self) -> float:
        """Return in how many seconds it may be tried again."""
        return max(0.0, self.retry_at - time.monotonic())


@dataclass(slots=True)
class Context:
    """What all versions of one server instance share.

    Attributes:
        server: The model server.
        cpus: Most workers of a version that does not say.
        refusing: Whether loads are refused, because the pod stops.
        schedulers: Those of all versions.
    """

    server: ModelServer
    settings: SidecarSettings
    cpus: int
    memory: Memory
    estimates: Estimates
    metrics: SidecarMetrics
    changes: Changes
    refusing: bool
    schedulers: WeakSet[Scheduler] = field(default_factory=WeakSet)


@dataclass(eq=False)
class Entry:
    """One version on this pod, as its scheduler sees it too; only its actor changes `state`, `served` and `workers`.

    Attributes:
        record, serving: The version, and how it is served now.
        context: What it shares with the other versions.
        want_load: Has it loaded, with a worker up.
        lose: Told that the model server does not have it.
        queue_grew: Told that somebody waits for it.
        scheduler, usage: Its queue and calls, and how many workers were of use.
        archive: Its archive, held in the store while it is registered.
        served: As the model server knows it, while it is registered.
        workers: Workers that it should have there.
        weights_bytes, copied_bytes: Memory that its workers share, and what of it they have copied, as last measured.
        load_began: When the load under way began, on the monotonic clock.
        used_at: When it was last of use, on the monotonic clock.
        asked_at: When anybody last wanted anything of it, on the monotonic clock.
        requested_at: When the last request came, in Unix time: it is only shown, and must read the same each time.
        restores: How many model servers in a row went since it was loaded; 0 while it is, and when it is not to be
            loaded again by itself.
        unloaded: Why it was unloaded last, and when, in Unix time; None where it was loaded since.
        settled_at: When its last transition ended, on the monotonic clock: what was seen before is out of date.
        failure: Why its last load failed; None when it did not.
        holds: How many hold it loaded, whoever else wants its memory.
    """

    record: VersionRecord
    serving: ServingSettings
    context: Context
    want_load: Callable[[], None]
    lose: Callable[[], None]
    queue_grew: Callable[[], None]
    state: State = "absent"
    archive: ArchiveUse | None = None
    served: ServedModel | None = None
    workers: int = 0
    weights_bytes: int = 0
    copied_bytes: int = 0
    load_began: float | None = None
    load_duration_s: float | None = None
    used_at: float = field(default_factory=time.monotonic)
    asked_at: float = field(default_factory=time.monotonic)
    requested_at: float | None = None
    unloaded: tuple[UnloadReason, float] | None = None
    restores: int = 0
    settled_at: float = 0.0
    failure: Failure | None = None
    holds: int = 0

    def __post_init__(self) -> None:
        context = self.context
        self.memory = context.memory
        given = (self, context.server, context.settings, context.metrics)
        sequences = self.record.sequences
        self.scheduler = Scheduler(*given) if sequences is None else SequenceScheduler(*given, sequences)
        context.schedulers.add(self.scheduler)
        self.usage = Usage(context.settings.scale_down_s)

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
    def parked(self) -> bool:
        """Whether it has no worker, and its weights are kept for when it has one again."""
        return self.state == "ready" and self.workers == 0 and self.weights_bytes > 0

    @property
    def calls_per_worker(self) -> int:
        """How many calls one of its workers takes at once."""
        return self.served.calls_per_worker if self.served is not None else 1

    @property
    def scales(self) -> bool:
        """Whether the number of its workers is ours to set."""
        return self.served is None or self.served.scales

    @property
    def idle(self) -> bool:
        """Whether nobody uses it, or is about to."""
        return self.scheduler.idle and not self.holds

    @property
    def fewest(self) -> int:
        """How many workers it keeps, while it is loaded, whatever others want."""
        return 1 if self.record.sequences is not None else max(1, bounds(self.serving, cpus=1)[0])

    @property
    def failed_lately(self) -> MarwayError | None:
        """Why its last load failed, while the pause after that is not over."""
        return self.failure.error if self.failure is not None and self.failure.wait_s() > 0 else None

    def let_go(self) -> None:
        """Count it as not registered: its archive may go from disk."""
        self.served = None
        self.weights_bytes = self.copied_bytes = 0
        if self.archive is not None:
            self.archive.close()
            self.archive = None

    def status(self) -> ModelStatus:
        """Return how it is shown."""
        failure = self.failure if self.state == "failed" else None
        reason, at = self.unloaded if self.unloaded is not None and self.state == "absent" else (None, None)
        return ModelStatus(
            id=self.record.id,
            name=self.record.name,
            version=self.record.version,
            state=self.state,
            workers=self.workers,
            requests_in_flight=self.scheduler.in_flight,
            requests_queued=self.scheduler.queued,
            memory_bytes=self.memory.of(self.key),
            pinned=self.serving.pinned,
            parked=self.parked,
            weights_bytes=self.weights_bytes,
            copied_bytes=self.copied_bytes,
            device_bytes=self.memory.devices.of(self.key),
            sequences=self.scheduler.live if isinstance(self.scheduler, SequenceScheduler) else 0,
            load_duration_s=self.load_duration_s,
            last_used_at=datetime.fromtimestamp(self.requested_at, UTC) if self.requested_at is not None else None,
            failures=self.failure.count if self.failure is not None else 0,
            failure=failure.error.message if failure is not None else None,
            retry_after_s=failure.wait_s() if failure is not None else None,
            unloaded_for=reason,
            unloaded_at=datetime.fromtimestamp(at, UTC) if at is not None else None,
        )

    def expected_s(self) -> float:
        """Return how long it should still take until it is loaded, by measured loads, in seconds."""
        if self.parked:
            return _FORK_S
        began = self.load_began
        elapsed = time.monotonic() - began if began is not None else 0.0
        return max(0.0, self.context.estimates.load_s(self.key) - elapsed)

    def check_load(self, deadline: Deadline) -> None:
        """Return when it makes sense to wait for its load; a load that takes too long for that is begun all the same.

        Raises:
            LoadFailed: It failed, and its pause is not over.
            ModelLoading: The load will take longer than the deadline leaves.
            Draining: The pod stops.
        """
        if self.state == "failed" and (error := self.failed_lately) is not None:
            raise without_traceback(error)
        if self.context.refusing and self.load_began is None:
            raise about(self.record, refused())
        expected_s = self.expected_s()
        if expected_s > deadline.left_s():
            self.want_load()
            more = f"takes {expected_s:.1f} s more: longer than the deadline leaves"
            message = f"{self.title} is being loaded, which {more}"
            raise about(self.record, ModelLoading(message, retry_after_s=expected_s))

    def load_late(self) -> MarwayError:
        """Return the error of who waited for its load until the deadline."""
        message = f"{self.title} is being loaded and was not ready within the deadline"
        return about(self.record, ModelLoading(message, retry_after_s=max(self.expected_s(), 1.0)))

    def want_worker(self, deadline: Deadline) -> None:
        if not self.answers:
            self.context.metrics.cold_requests.inc()
            self.check_load(deadline)
            self.want_load()

    def others_wait(self) -> bool:
        return any(scheduler.held_up for scheduler in self.context.schedulers)

    def full(self) -> MarwayError:
        message = f"{self.context.settings.queue_limit} requests wait for {self.title} already"
        retry_after_s = self.scheduler.expected_wait_s() or self.expected_s()
        return about(self.record, Overloaded(message, retry_after_s=retry_after_s))

    def late(self, since: float) -> MarwayError:
        if self.answers:
            if self.scheduler.last_end < since:
                self.scheduler.breaker.failed()  # nothing moved while it waited: its workers hang
            return about(self.record, DeadlineExceeded(f"{self.title} was busy until the deadline had passed"))
        if self.memory.waits(self.key):
            message = f"{self.title} waits for memory that other versions are using"
            return about(self.record, Unavailable(message, retry_after_s=self.context.estimates.load_s(self.key)))
        return self.load_late()


def refused() -> Draining:
    """Return the error of who wants a load while the pod stops."""
    return Draining("this pod is stopping and loads nothing any more")
