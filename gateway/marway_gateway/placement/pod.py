"""One pod as this gateway sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from marway.wire.pods import PodStatus
from marway_gateway.settings import PodAddress

__all__ = ["Load", "Pod", "PodState", "VersionKey"]

VersionKey = tuple[str, str]
"""A model's name and a version."""
PodState = Literal["ready", "unknown", "not_ready", "draining", "ejected", "unreachable"]
"""Whether a pod gets requests, in one word; `unknown` is one that has not said anything yet, and gets them."""


class Load:
    """Requests in flight on all pods of a set."""

    __slots__ = ("requests",)

    def __init__(self) -> None:
        self.requests = 0


class Pod:
    """One pod as this gateway sees it. `PodSet` changes it.

    Attributes:
        name: What placement hashes.
        url: Base URL of its sidecar.
        status: What it last said of itself, or None before its first answer.
        ready_versions: The versions that it said are ready.
        leaving: Whether its discovery says that it is being terminated.
        unreachable: Why it does not answer, or None when it does or was not asked yet.
        ejected_until: Monotonic seconds, or None when it is not ejected.
        ejections: How many ejections in a row; the next lasts that much longer.
        requests_in_flight: This gateway's own requests on it.
        in_flight_of: The same by version; versions without any are left out.
        removed: Whether it is no longer one of the gateway's pods.
    """

    __slots__ = (
        "ejected_at",
        "ejected_until",
        "ejection_reason",
        "ejections",
        "failures",
        "in_flight_of",
        "late_answers",
        "leaving",
        "load",
        "name",
        "on_end",
        "ready_versions",
        "removed",
        "requests_in_flight",
        "silent",
        "status",
        "timeouts",
        "unreachable",
        "url",
        "willing",
    )

    def __init__(
        self, address: PodAddress, *, load: Load | None = None, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self.name = address.name
        self.url = address.url
        self.status: PodStatus | None = None
        self.ready_versions: frozenset[VersionKey] = frozenset()
        self.leaving = False
        self.unreachable: str | None = None
        self.ejected_at = 0.0
        self.ejected_until: float | None = None
        self.ejection_reason = ""
        self.ejections = 0
        self.failures = 0
        self.timeouts = 0
        self.late_answers = 0
        self.silent = False
        """Ejected for requests that it did not answer, which no health check can take back."""
        self.willing = True
        """Whether it is there to stay and says that it takes requests; so does one that has said nothing yet."""
        self.requests_in_flight = 0
        self.in_flight_of: dict[VersionKey, int] = {}
        self.removed = False
        self.load = load or Load()
        self.on_end = on_end

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

    def hands_over(self, now: float) -> bool:
        """Return whether it drains and can still answer for the versions that it has ready."""
        return self.draining and self.unreachable is None and (self.ejected_until is None or now >= self.ejected_until)

    def healthy(self, now: float) -> bool:
        """Return whether the pod should get requests, which is when `trouble` has nothing to say."""
        return self.willing and self.unreachable is None and (self.ejected_until is None or now >= self.ejected_until)

    def trouble(self, now: float) -> str | None:
        """Return why the pod should get no requests, or None when it should. One not asked yet is given a chance."""
        if self.unreachable is not None:
            return self.unreachable
        if self.draining:
            return "is being terminated" if self.leaving else "is draining"
        if self.ejected_until is not None and now < self.ejected_until:
            return f"is ejected for {self.ejected_until - now:.0f} s more: {self.ejection_reason}"
        if self.status is not None and not self.status.ready:
            return "says it is not ready"
        return None

    def state(self, now: float) -> PodState:
        """Return `trouble` in one word."""
        if self.unreachable is not None:
            return "unreachable"
        if self.draining:
            return "draining"
        if self.ejected_until is not None and now < self.ejected_until:
            return "ejected"
        if self.status is None:
            return "unknown"
        return "ready" if self.status.ready else "not_ready"

    def remove(self) -> None:
        """Take it out of its set; requests that are in flight go on and no longer count there."""
        self.removed = True
        self.load.requests -= self.requests_in_flight
        self.load = Load()
        self.load.requests = self.requests_in_flight

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
        self.on_end()
