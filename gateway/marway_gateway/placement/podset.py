"""The pods as they are found and as they say they are, and which of them are taken out for a while.

Outlier ejection: pods that fail requests are left alone for a while (Envoy's outlier detection). The n-th ejection in a
row lasts n times `eject_s`, and ends at once when an active health check, begun after it, finds the pod ready; not so
one for requests that were never answered, because health checks were answered all along. Never are more than
`max_percent` of the pods out at a time, one at least may be: with most pods failing, the fault is likelier elsewhere,
and the few that are left would drown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from marway.wire.pods import PodStatus
from marway_gateway.placement.choice import NOBODY, PlacementSpec, PodChoice
from marway_gateway.placement.pod import Pod, VersionKey
from marway_gateway.settings import PodAddress

__all__ = ["Ejection", "PodSet"]

_TIMEOUT_COUNTS_S: Final = 1.0
"""A request that gave its pod less time than this says nothing about it: impatience is not a pod's failure."""


@dataclass(frozen=True, kw_only=True)
class Ejection:
    """When a pod is taken out, and for how long.

    Attributes:
        after_failures: Failures in a row that eject a pod: connections lost, or deadlines that passed.
        eject_s: How long a first ejection lasts.
        eject_max_s: The longest ejection.
        max_percent: How many of the pods may be out at a time, in percent.
        on_ejection: Called once an ejection.
    """

    after_failures: int
    eject_s: float
    eject_max_s: float
    max_percent: int = 50
    on_ejection: Callable[[], None] = lambda: None


class PodSet(PodChoice):
    """All pods and their health.

    Args:
        addresses: All pods.
        ejection: Takes pods out that fail requests.
        spill_requests, spill_factor, max_requests, clock: As `PodChoice` has them.

    Attributes:
        on_change: Told that a pod came, went, or began or ceased to be healthy.
        none_because: Why there are no pods, when there are none.
    """

    def __init__(
        self,
        addresses: Iterable[PodAddress],
        *,
        ejection: Ejection,
        spill_requests: int = 16,
        spill_factor: float = 1.25,
        max_requests: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            spill_requests=spill_requests, spill_factor=spill_factor, max_requests=max_requests, clock=clock
        )
        self.on_change: Callable[[], None] = lambda: None
        self.none_because = "no pods are configured: set MARWAY_GATEWAY_PODS or give --pods"
        self._ejection = ejection
        self.replace(addresses)

    def replace(self, addresses: Iterable[PodAddress], *, leaving: Collection[str] = ()) -> None:
        """Have these pods from now on. Those that stay keep all that is known of them; requests on others go on.

        Args:
            addresses: All of them.
            leaving: Names of those that are being terminated.
        """
        known = {(pod.name, pod.url): pod for pod in self.pods}
        pods = []
        for address in addresses:
            pod = known.pop((address.name, address.url), None)
            pods.append(pod if pod is not None else Pod(address, self.load))
        for gone in known.values():
            gone.remove()
            self._note_ready(gone, frozenset())
        going = [pod for pod in pods if pod.leaving != (pod.name in leaving)]
        for pod in going:
            pod.leaving = not pod.leaving
            pod.note_willing()
        if tuple(pods) != self.pods:
            self.pods = tuple(pods)
            self._orders.clear()
            self.on_change()
        elif going:
            self.on_change()

    # -- who may serve what --------------------------------------------------------------------------------

    def order(self, name: str, version: str, *, backend: str | None = None, pool: str | None = None) -> tuple[Pod, ...]:
        """Return the pods that may serve a version, its home first; arguments as `PlacementSpec` has them."""
        return self.order_of(PlacementSpec((name, version), backend, pool))

    def used_since(self, since: float) -> list[PlacementSpec]:
        """Return the versions that were chosen a pod for since a moment, the most recent ones if they are many."""
        return [spec for spec, at in self._used.values() if at >= since]

    def wanted(self, spec: PlacementSpec, *, tried: Collection[Pod] = ()) -> list[Pod]:
        """Return the healthy pods that should serve a version now, its home first.

        Those are its first ``spec.pods`` ones, and as many more as it takes for one of them not to be full.
        """
        return self._wanted(spec, tried, self.order_of(spec), self.now())

    def has_ready(self, spec: PlacementSpec) -> bool:
        """Return whether a pod that gets requests has a version ready; if none has, who should is named as missing."""
        now, order = self.now(), self.order_of(spec)
        for pod in self._ready.get(spec.key, NOBODY):
            if pod in order and (pod.healthy(now) or pod.hands_over(now)):
                return True
        for pod in self._wanted(spec, (), order, now):
            self.on_missing(pod, spec)
        return False

    def holding(self, spec: PlacementSpec) -> list[Pod]:
        """Return the pods that have a version ready and take requests for it, also while they drain; its home first."""
        now, ready = self.now(), self._ready.get(spec.key, NOBODY)
        return [pod for pod in self.order_of(spec) if pod in ready and (pod.healthy(now) or pod.hands_over(now))]

    def saturated(self, spec: PlacementSpec, *, tried: Collection[Pod] = ()) -> bool:
        """Return whether a healthy pod is left that only has too many requests in flight."""
        now = self.now()
        return any(pod.healthy(now) and pod not in tried and self._at_limit(pod) for pod in self.order_of(spec))

    # -- state in words ------------------------------------------------------------------------------------

    def ready(self, spec: PlacementSpec | None = None) -> bool:
        """Return whether some pod, of those for ``spec``, said that it is ready and nothing speaks against it."""
        now = self.now()
        pods = self.pods if spec is None else self.order_of(spec)
        return any(pod.status is not None and pod.healthy(now) for pod in pods)

    def troubles(self, spec: PlacementSpec | None = None) -> str:
        """Say in words why pods get no requests, for a message."""
        if not self.pods:
            return self.none_because
        pods = self.pods
        if spec is not None:
            pods = self.order_of(spec)
            if not pods:
                pool = f" of the pool {spec.pool!r}" if spec.pool is not None else ""
                return f"none of the {len(self.pods)} pods runs {_runs(spec)}{pool}"
        now = self.now()
        well = {"ready": "is ready", "unknown": "has not answered yet"}
        return "; ".join(f"pod {pod.name} {pod.trouble(now) or well[pod.state(now)]}" for pod in pods)

    # -- health --------------------------------------------------------------------------------------------

    def observe(self, pod: Pod, status: PodStatus, *, asked_at: float) -> None:
        """Take in what a pod says of itself, in answer to a question asked at ``asked_at`` by the clock."""
        if pod.removed:
            return
        before, was_healthy = pod.status, pod.healthy(self.now())
        pod.status = status
        pod.note_willing()
        pod.unreachable = None
        pod.late_answers = 0
        # An answer that was under way when the pod was ejected says nothing about it since.
        if pod.ejected_until and status.ready and asked_at >= pod.ejected_at and not pod.silent:
            pod.ejected_until = 0.0
            pod.failures = 0
        if before is None or _kind(before) != _kind(status):
            self._orders.clear()
        if before is None or before.models is not status.models:
            ready = (model for model in status.models if model.state == "ready")
            self._note_ready(pod, frozenset((model.name, model.version) for model in ready))
        if before is None or was_healthy != pod.healthy(self.now()):
            self.on_change()

    def unreachable(self, pod: Pod, why: str) -> None:
        """Take a pod out until it answers a health check: nobody listens there."""
        changed = pod.unreachable is None
        pod.unreachable = why
        if changed:
            self.on_change()

    def late(self, pod: Pod, why: str) -> None:
        """Take in that a pod did not answer a health check in time; the second in a row takes it out.

        One does not: a machine that is busy loading a model answers late once in a while.
        """
        pod.late_answers += 1
        if pod.late_answers > 1:
            self.unreachable(pod, why)

    def lost(self, pod: Pod, why: str) -> None:
        """Count a connection that broke under a request; too many in a row eject the pod."""
        pod.failures += 1
        if pod.failures >= self._ejection.after_failures:
            self.eject(pod, why)

    def timed_out(self, pod: Pod, *, waited_s: float) -> None:
        """Count a request that the pod left without an answer until its deadline; too many in a row eject the pod."""
        if waited_s < _TIMEOUT_COUNTS_S:
            return
        pod.timeouts += 1
        if pod.timeouts >= self._ejection.after_failures:
            why = f"left {pod.timeouts} requests in a row without an answer"
            pod.silent = self.eject(pod, why) or pod.silent

    def eject(self, pod: Pod, why: str) -> bool:
        """Take a pod out at once and return True, unless it is out already or too many are."""
        now, rule = self.now(), self._ejection
        out = sum(other.ejected(now) for other in self.pods)
        if pod.ejected(now) or out + 1 > max(1, len(self.pods) * rule.max_percent // 100):
            return False
        # A pod that was well for as long as the longest ejection starts over.
        pod.ejections = 1 if now - pod.ejected_at > rule.eject_max_s else pod.ejections + 1
        pod.ejected_at = now
        pod.ejected_until = now + min(rule.eject_s * pod.ejections, rule.eject_max_s)
        pod.ejection_reason = why
        pod.failures = pod.timeouts = 0
        pod.silent = False
        rule.on_ejection()
        self.on_change()
        return True

    def _note_ready(self, pod: Pod, ready: frozenset[VersionKey]) -> None:
        for key in pod.ready_versions - ready:
            pods = self._ready[key]
            pods.discard(pod)
            if not pods:
                del self._ready[key]
        for key in ready - pod.ready_versions:
            self._ready.setdefault(key, set()).add(pod)
        pod.ready_versions = ready


def _runs(spec: PlacementSpec) -> str:
    """Return what pods would have to run to serve a version, and who says so if it is not its archive."""
    if spec.engine is None:
        return str(spec.backend)
    archive = f", with archives for {spec.backend}" if spec.backend not in (None, spec.engine) else ""
    return f"{spec.engine}{archive}, which the version's serving setting `engine` asks for"


def _kind(status: PodStatus) -> tuple[object, ...]:
    return status.backend, status.serves, status.pool
