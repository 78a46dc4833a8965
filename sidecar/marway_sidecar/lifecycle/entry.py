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
from pathlib import Path
from typing import Protocol

from marway.errors import Unavailable
from marway.records import ServingSettings, VersionRecord
from marway.wire.pods import ModelStatus, State
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.lifecycle.failures import Failure
from marway_sidecar.lifecycle.scaling import Demand
from marway_sidecar.scheduler.breaker import Breaker
from marway_sidecar.scheduler.scheduler import Gate

__all__ = ["Entry", "HeldArchive"]


class HeldArchive(Protocol):
    """An archive that stays in the store until it is closed; closing it again does nothing."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def close(self) -> None:
        """Let it be evicted from disk."""


@dataclass(eq=False)
class Entry:
    """What is known of one version; only its actor changes `state`, `served` and `workers`.

    Attributes:
        record, serving: The version, and how it is served now.
        gate, breaker, demand: Who may call it, whether calls end well, how many workers were of use.
        archive: Its archive, held in the store while it is registered.
        served: As the model server knows it, while it is registered.
        workers: Workers that it should have there.
        load_began: When the load under way began, on the monotonic clock.
        used_at: When it was last of use, on the monotonic clock.
        requested_at: When the last request came, in Unix time: it is only shown, and must read the same each time.
        asked_at: When anybody last wanted anything of it, on the monotonic clock.
        restores: How many model servers in a row went before it was loaded again, after one that had it; 0 when it is
            not to be loaded again by itself.
        settled_at: When its last transition ended, on the monotonic clock: what was seen before is out of date.
    """

    record: VersionRecord
    serving: ServingSettings
    gate: Gate
    breaker: Breaker
    demand: Demand
    state: State = "absent"
    archive: HeldArchive | None = None
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
    def retrying_later(self) -> bool:
        """Whether its last load failed and the pause is not over."""
        return self.failure is not None and self.failure.wait_s() > 0

    def ask_breaker(self) -> None:
        """Return when a call may go; whoever asked has to report how it went (`Breaker.wait_s`).

        Raises:
            Unavailable: Calls keep failing.
        """
        wait_s = self.breaker.wait_s()
        if wait_s is not None:
            raise Unavailable(
                f"calls of {self.title} keep dying or hanging, so it is given a pause",
                model=self.record.name,
                version=self.record.version,
                retry_after_s=wait_s,
            )

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
            requests_in_flight=self.gate.in_flight,
            requests_queued=self.gate.queued,
            memory_bytes=memory_bytes,
            pinned=self.serving.pinned,
            load_duration_s=self.load_duration_s,
            last_used_at=self.last_used_at,
            failures=self.failure.count if self.failure is not None else 0,
            failure=failure.error.message if failure is not None else None,
            retry_after_s=failure.wait_s() if failure is not None else None,
        )
