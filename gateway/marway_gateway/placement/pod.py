"""One pod as this gateway sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from marway.wire.pods import PodStatus
from marway_gateway.settings import PodAddress

__all__ = ["Load", "Pod", "PodState", "VersionKey"]

VersionKey = tuple[str, str]
"""A model's name and a version."""
PodState = Literal["ready", "unknown", "not_ready", "draining", "ejected", "unreachable"]
"""Whether a pod gets requests, in one word; `unknown` is one that has not said anything yet, and gets them."""


@dataclass(slots=True)
class Load:
    """Requests in flight on all pods of a set, and who is told when one has ended."""

    requests: int = 0
    on_end: Callable[[], None] = lambda: None


@dataclass(slots=True, eq=False)
class Pod:
    """One pod as this gateway sees it. `PodSet` changes it.

    Attributes:
        address: Where it is, and what placement hashes.
        load: Where its requests in flight count too.
        status: What it last said of itself, or None before its first answer.
        ready_versions: The versions that it said are ready.
        leaving: Whether its discovery says that it is being terminated.
        unreachable: Why it does not answer, or None when it does or was not asked yet.
        ejected_at: When its last ejection began, in monotonic seconds.
        ejected_until: When that ends or ended; 0 where there was none, or a health check took it back.
        ejection_reason: Words to put behind the pod's name.
        ejections: How many ejections in a row; the next lasts that much longer.
        failures, timeouts: Connections lost, and requests left without an answer, in a row.
        late_answers: Health checks in a row that were not answered in time.
        silent: Whether it is ejected for requests that it did not answer, which no health check can take back.
        willing: Whether it is there to stay and says that it takes requests; so does one that has said nothing yet.
        requests_in_flight: This gateway's own requests on it.
        in_flight_of: The same by version; versions without any are left out.
        removed: Whether it is no longer one of the gateway's pods.
    """

    address: PodAddress
    load: Load = field(default_factory=Load)
    name: str = field(init=False)
    url: str = field(init=False)
    status: PodStatus | None = None
    ready_versions: frozenset[VersionKey] = frozenset()
    leaving: bool = False
    unreachable: str | None = None
    ejected_at: float = 0.0
    ejected_until: float = 0.0
    ejection_reason: str = ""
    ejections: int = 0
    failures: int = 0
    timeouts: int = 0
    late_answers: int = 0
    silent: bool = False
    willing: bool = True
    requests_in_flight: int = 0
    in_flight_of: dict[VersionKey, int] = field(default_factory=dict)
    removed: bool = False

    def __post_init__(self) -> None:
        self.name, self.url = self.address.name, self.address.url

    @property
    def draining(self) -> bool:
        """Whether it should get no new work: it says so itself, or is being terminated."""
        return self.leaving or (self.status is not None and self.status.draining)

    def has_to_load(self, key: VersionKey) -> bool:
        """Return whether a request for this version waits for a load there, as far as the pod has said."""
        return self.status is not None and key not in self.ready_versions

    def note_willing(self) -> None:
        """Work out `willing` anew."""
        self.willing = not self.draining and (self.status is None or self.status.ready)

    def may_serve(self, backend: str | None, pool: str | None, engine: str | None = None) -> bool:
        """Return whether it serves a backend, is of a pool and of an engine; None means any.

        One that has not said yet is of no pool and of no engine.
        """
        if self.status is None:
            return pool is None and engine is None
        served = backend is None or self.status.may_serve(backend)
        return served and pool in (None, self.status.pool) and engine in (None, self.status.backend)

    def ejected(self, now: float) -> bool:
        """Return whether it is taken out for requests that it failed."""
        return now < self.ejected_until

    def hands_over(self, now: float) -> bool:
        """Return whether it drains and can still answer for the versions that it has ready."""
        return self.draining and self.unreachable is None and now >= self.ejected_until

    def healthy(self, now: float) -> bool:
        """Return whether the pod should get requests, which is when `trouble` has nothing to say."""
        return self.willing and self.unreachable is None and now >= self.ejected_until

    def trouble(self, now: float) -> str | None:
        """Return why the pod should get no requests, or None when it should. One not asked yet is given a chance."""
        match self.state(now):
            case "unreachable":
                return self.unreachable
            case "draining":
                return "is being terminated" if self.leaving else "is draining"
            case "ejected":
                return f"is ejected for {self.ejected_until - now:.0f} s more: {self.ejection_reason}"
            case "not_ready":
                return "says it is not ready"
        return None

    def state(self, now: float) -> PodState:
        """Return `trouble` in one word."""
        if self.unreachable is not None:
            return "unreachable"
        if self.draining:
            return "draining"
        if self.ejected(now):
            return "ejected"
        if self.status is None:
            return "unknown"
        return "ready" if self.status.ready else "not_ready"

    def succeeded(self) -> None:
        """Take in an answer that shows it to be well."""
        self.failures = self.timeouts = 0

    def remove(self) -> None:
        """Take it out of its set; requests that are in flight go on and no longer count there."""
        self.removed = True
        self.load.requests -= self.requests_in_flight
        self.load = Load(self.requests_in_flight, self.load.on_end)

    def begin(self, key: VersionKey) -> None:
        """Count a request for a version as in flight here."""
        self.requests_in_flight += 1
        self.load.requests += 1
        self.in_flight_of[key] = self.in_flight_of.get(key, 0) + 1

    def end(self, key: VersionKey) -> None:
        """Count a request as ended."""
        self.requests_in_flight -= 1
        self.load.requests -= 1
        left = self.in_flight_of[key] - 1
        if left:
            self.in_flight_of[key] = left
        else:
            del self.in_flight_of[key]
        self.load.on_end()
