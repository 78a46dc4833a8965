"""Which pods a version is placed on, and in which order they are tried.

Rendezvous hashing (Thaler and Ravishankar, 1998): each pod gets a score from its name and the version, and the pods in
falling order of score are the version's list. Every gateway computes the same list with no word between them, and a
pod that comes or goes moves only the versions that it wins or held. Health decides who of the list is asked, never
the order, so a version returns to its home when that is well again.

Ejection follows Envoy's outlier detection: the n-th ejection lasts n times `eject_s`, and ends at once when an active
health check, begun after it, finds the pod ready. When no pod is healthy at all, the others are tried anyway (panic).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b

from marway.resolve.caches import LruCache
from marway.wire.pods import PodStatus
from marway_gateway.settings import PodAddress

__all__ = ["Pod", "PodSet", "score"]

_ORDERS_MAX = 20_000


def score(pod: str, name: str, version: str) -> int:
    """Return a pod's score for a version: 64 bits of BLAKE2b, the same on every machine and in every process."""
    digest = blake2b(f"{pod}\0{name}\0{version}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Pod:
    """One pod as this gateway sees it. `PodSet` changes it.

    Attributes:
        name: What placement hashes.
        url: Base URL of its sidecar.
        status: What it last said of itself, or None before its first answer.
        unreachable: Why it does not answer, or None when it does or was not asked yet.
        ejected_until: Monotonic seconds, or None when it is not ejected.
        ejections: How many ejections in a row; the next lasts that much longer.
        requests_in_flight: This gateway's own requests on it.
    """

    __slots__ = (
        "ejected_at",
        "ejected_until",
        "ejection_reason",
        "ejections",
        "failures",
        "late_answers",
        "name",
        "requests_in_flight",
        "status",
        "unreachable",
        "url",
    )

    def __init__(self, address: PodAddress) -> None:
        self.name = address.name
        self.url = address.url
        self.status: PodStatus | None = None
        self.unreachable: str | None = None
        self.ejected_at = 0.0
        self.ejected_until: float | None = None
        self.ejection_reason = ""
        self.ejections = 0
        self.failures = 0
        self.late_answers = 0
        self.requests_in_flight = 0

    @property
    def draining(self) -> bool:
        return self.status is not None and self.status.draining

    def trouble(self, now: float) -> str | None:
        """Return why the pod should get no requests, or None when it should. One not asked yet is given a chance."""
        if self.unreachable is not None:
            return self.unreachable
        if self.draining:
            return "is draining"
        if self.ejected_until is not None and now < self.ejected_until:
            return f"is ejected for {self.ejected_until - now:.0f} s more: {self.ejection_reason}"
        if self.status is not None and not self.status.ready:
            return "says it is not ready"
        return None


class PodSet:
    """The pods, their health and each version's order of them.

    Args:
        addresses: All pods.
        eject_after_failures: Connections lost in a row that eject a pod.
        eject_s: How long a first ejection lasts.
        eject_max_s: The longest ejection.
        on_ejection: Called once an ejection.
        clock: Monotonic seconds; `now` gives them.
    """

    def __init__(
        self,
        addresses: Iterable[PodAddress],
        *,
        eject_after_failures: int,
        eject_s: float,
        eject_max_s: float,
        on_ejection: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pods = tuple(Pod(address) for address in addresses)
        self._eject_after_failures = eject_after_failures
        self._eject_s = eject_s
        self._eject_max_s = eject_max_s
        self._on_ejection = on_ejection
        self.now = clock
        self._orders: LruCache[tuple[str, str], tuple[Pod, ...]] = LruCache(_ORDERS_MAX)

    # -- placement -----------------------------------------------------------------------------------------

    def order(self, name: str, version: str) -> tuple[Pod, ...]:
        """Return all pods, the version's home first."""
        order = self._orders.get((name, version))
        if order is None:
            order = tuple(sorted(self.pods, key=lambda pod: (score(pod.name, name, version), pod.name), reverse=True))
            self._orders.put((name, version), order)
        return order

    def choose(self, name: str, version: str, *, tried: Collection[Pod]) -> Pod | None:
        """Return the pod to ask next, or None when nobody is left.

        That is the first of the version's order that is healthy and not in ``tried``. When no pod is healthy,
        tried ones included, it is the first that is not draining.
        """
        now = self.now()
        panic = True
        last_resort = None
        for pod in self.order(name, version):
            if pod.trouble(now) is None:
                if pod not in tried:
                    return pod
                panic = False
            elif last_resort is None and not pod.draining and pod not in tried:
                last_resort = pod
        return last_resort if panic else None

    def ready(self) -> bool:
        """Return whether some pod said that it is ready and nothing speaks against it."""
        now = self.now()
        return any(pod.status is not None and pod.trouble(now) is None for pod in self.pods)

    def troubles(self) -> str:
        """Say in words why pods get no requests, for a message."""
        if not self.pods:
            return "no pods are configured: set MARWAY_GATEWAY_PODS or give --pods"
        now = self.now()
        return "; ".join(f"pod {pod.name} {_why(pod, now)}" for pod in self.pods)

    # -- health --------------------------------------------------------------------------------------------

    def observe(self, pod: Pod, status: PodStatus, *, asked_at: float) -> None:
        """Take in what a pod says of itself, in answer to a question asked at ``asked_at`` by the clock."""
        pod.status = status
        pod.unreachable = None
        pod.late_answers = 0
        # An answer that was under way when the pod was ejected says nothing about it since.
        if pod.ejected_until is not None and status.ready and asked_at >= pod.ejected_at:
            pod.ejected_until = None
            pod.failures = 0

    def unreachable(self, pod: Pod, why: str) -> None:
        """Take a pod out until it answers a health check: nobody listens there."""
        pod.unreachable = why

    def late(self, pod: Pod, why: str) -> None:
        """Take in that a pod did not answer a health check in time; the second in a row takes it out.

        One does not: a machine that is busy loading a model answers late once in a while.
        """
        pod.late_answers += 1
        if pod.late_answers > 1:
            self.unreachable(pod, why)

    def succeeded(self, pod: Pod) -> None:
        """Count an answer that shows the pod to be well."""
        pod.failures = 0

    def lost(self, pod: Pod, why: str) -> None:
        """Count a connection that broke under a request; too many in a row eject the pod."""
        pod.failures += 1
        if pod.failures >= self._eject_after_failures:
            self.eject(pod, why)

    def eject(self, pod: Pod, why: str) -> None:
        """Take a pod out for a while, at once; one that is out already stays as it is."""
        now = self.now()
        if pod.ejected_until is not None and now < pod.ejected_until:
            return
        # A pod that was well for as long as the longest ejection starts over.
        pod.ejections = 1 if now - pod.ejected_at > self._eject_max_s else pod.ejections + 1
        pod.ejected_at = now
        pod.ejected_until = now + min(self._eject_s * pod.ejections, self._eject_max_s)
        pod.ejection_reason = why
        pod.failures = 0
        self._on_ejection()


def _why(pod: Pod, now: float) -> str:
    why = pod.trouble(now)
    if why is not None:
        return why
    return "has not answered yet" if pod.status is None else "is ready"
