"""The pods, and who of them is asked next; `spec` says in which order they come.

Load is bounded as in consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016), which Envoy and
HAProxy call `hash_balance_factor`: a pod is full for a version when it works on too many of its requests, or on more
than its share of all; then the next pod of the list serves the version as well.

A pod serves a version only once it has it ready, as long as another one does: who should serve and cannot yet is named
to `on_missing`, which has it loaded ahead. So does a pod that drains: for versions that nobody else has ready yet it is
asked as long as it takes requests, as kube-proxy goes on to use terminating endpoints while there are no others
(Kubernetes KEP-1669).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import Final

from marway.resolve.caches import LruCache
from marway.wire.pods import PodStatus
from marway_gateway.placement.ejection import Ejection
from marway_gateway.placement.pod import Load, Pod, VersionKey
from marway_gateway.placement.spec import PlacementSpec, ranked
from marway_gateway.settings import PodAddress

__all__ = ["PodSet"]

_ORDERS_MAX = 20_000
_SPILL_REQUESTS, _SPILL_FACTOR = 16, 1.25
_NOBODY: Final[frozenset[Pod]] = frozenset()
_in_flight = attrgetter("requests_in_flight")


class PodSet:
    """The pods, their health and each version's order of them.

    Args:
        addresses: All pods.
        ejection: Takes pods out that fail requests.
        spill_requests: Requests of one version in flight on a pod from which on the next pod serves it as well.
        spill_factor: A pod with more than so many times the mean of requests in flight has more than its share.
        max_requests: Requests in flight on one pod beyond which it gets none; None means no bound.
        clock: Monotonic seconds; `now` gives them.

    Attributes:
        pods: All pods.
        on_missing: Told a pod that should serve a version and does not have it ready, while it goes elsewhere.
        on_change: Told that a pod came, went, or began or ceased to be healthy.
        on_end: Told that a request on a pod has ended.
        none_because: Why there are no pods, when there are none.
    """

    def __init__(
        self,
        addresses: Iterable[PodAddress],
        *,
        ejection: Ejection,
        spill_requests: int = _SPILL_REQUESTS,
        spill_factor: float = _SPILL_FACTOR,
        max_requests: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pods: tuple[Pod, ...] = ()
        self.on_missing: Callable[[Pod, PlacementSpec], None] = lambda pod, spec: None
        self.on_change: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self.none_because = "no pods are configured: set MARWAY_GATEWAY_PODS or give --pods"
        self.now = clock
        self._ejection = ejection
        self._spill_requests = spill_requests
        self._spill_factor = spill_factor
        self._max_requests = max_requests
        self._orders: LruCache[tuple[VersionKey, str | None, str | None], tuple[Pod, ...]] = LruCache(_ORDERS_MAX)
        self._load = Load()
        self._ready: dict[VersionKey, set[Pod]] = {}
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
            pods.append(pod if pod is not None else Pod(address, self._load, lambda: self.on_end()))
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

    # -- placement -----------------------------------------------------------------------------------------

    def order(self, name: str, version: str, *, backend: str | None = None, pool: str | None = None) -> tuple[Pod, ...]:
        """Return the pods that may serve a version, its home first.

        Args:
            name: The model's name.
            version: The version.
            backend: What they must serve; one that has not said yet is taken to serve it.
            pool: The pool that they must be of; None means any.
        """
        key = (name, version), backend, pool
        order = self._orders.get(key)
        if order is None:
            order = ranked(self.pods, *key)
            self._orders.put(key, order)
        return order

    def wanted(self, spec: PlacementSpec, *, tried: Collection[Pod] = ()) -> list[Pod]:
        """Return the healthy pods that should serve a version now, its home first.

        Those are its first ``spec.pods`` ones, and as many more as it takes for one of them not to be full.
        """
        return self._wanted(spec, tried, self.order_of(spec), self.now())

    def _wanted(self, spec: PlacementSpec, tried: Collection[Pod], order: tuple[Pod, ...], now: float) -> list[Pod]:
        wanted: list[Pod] = []
        room = False
        for pod in order:
            if pod.healthy(now) and pod not in tried and not self._at_limit(pod):
                wanted.append(pod)
                room = room or not self._full(pod, spec.key, order)
                if room and len(wanted) >= spec.pods:
                    break
        return wanted

    def choose(self, spec: PlacementSpec, *, tried: Collection[Pod] = ()) -> Pod | None:
        """Return the pod to ask next, or None when nobody is left.

        Of the pods that should serve the version and have it ready, that is the one with the fewest requests in
        flight; if none has, the first that is healthy and has it ready; if none has, the first that drains, has it
        ready and still answers; if nobody has, its home, which loads it. When no pod is healthy, tried ones included,
        and none hands the version over, it is the one with the fewest requests in flight that does not drain.
        """
        order, now = self.order_of(spec), self.now()
        wanted = self._wanted(spec, tried, order, now)
        key = spec.key
        if not wanted:
            if any(pod.healthy(now) for pod in order):
                return None
            return self._handing_over(key, order, tried, now) or self._in_panic(order, tried)
        ready = self._ready.get(key, _NOBODY)
        serving = [pod for pod in wanted if pod in ready]
        if len(serving) > 1:
            chosen = min([pod for pod in serving if not self._full(pod, key, order)] or serving, key=_in_flight)
        elif serving:
            chosen = serving[0]
        else:
            elsewhere = [pod for pod in ready if pod.healthy(now) and pod not in tried and not self._at_limit(pod)]
            healthy = min((pod for pod in elsewhere if pod in order), key=order.index, default=None)
            chosen = healthy or self._handing_over(key, order, tried, now) or wanted[0]
        if len(serving) < len(wanted):
            for pod in wanted:
                if pod is not chosen and pod not in ready:
                    self.on_missing(pod, spec)
        return chosen

    def saturated(self, spec: PlacementSpec, *, tried: Collection[Pod] = ()) -> bool:
        """Return whether a healthy pod is left that only has too many requests in flight."""
        now = self.now()
        return any(pod.healthy(now) and pod not in tried and self._at_limit(pod) for pod in self.order_of(spec))

    def order_of(self, spec: PlacementSpec) -> tuple[Pod, ...]:
        """Return the pods that may serve a version as it asks for now, its home first."""
        (name, version), backend, pool, _ = spec
        return self.order(name, version, backend=backend, pool=pool)

    def _handing_over(self, key: VersionKey, order: tuple[Pod, ...], tried: Collection[Pod], now: float) -> Pod | None:
        """Return the first pod that drains, has a version ready and may still take a request for it."""
        ready = self._ready.get(key, _NOBODY)
        if not ready:
            return None
        left = (pod for pod in order if pod in ready and pod not in tried and not self._at_limit(pod))
        return next((pod for pod in left if pod.hands_over(now)), None)

    def _in_panic(self, order: tuple[Pod, ...], tried: Collection[Pod]) -> Pod | None:
        left = [pod for pod in order if not pod.draining and pod not in tried and not self._at_limit(pod)]
        return min(left, key=_in_flight, default=None)

    def _at_limit(self, pod: Pod) -> bool:
        return self._max_requests is not None and pod.requests_in_flight >= self._max_requests

    def _full(self, pod: Pod, key: VersionKey, order: tuple[Pod, ...]) -> bool:
        if pod.requests_in_flight < self._spill_requests:
            return False
        if pod.in_flight_of.get(key, 0) >= self._spill_requests:
            return True
        # The sum over many pods takes longer than all else here, and nearly always they are all the pods there are.
        everybody = len(order) == len(self.pods)
        requests = self._load.requests if everybody else sum(pod.requests_in_flight for pod in order)
        return pod.requests_in_flight > self._spill_factor * requests / len(order)

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
                return f"none of the {len(self.pods)} pods runs {spec.backend}{pool}"
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

    def succeeded(self, pod: Pod) -> None:
        """Count an answer that shows the pod to be well."""
        pod.failures = pod.timeouts = 0

    def lost(self, pod: Pod, why: str) -> None:
        """Count a connection that broke under a request; too many in a row eject the pod."""
        if self._ejection.lost(self.pods, pod, why, self.now()):
            self.on_change()

    def timed_out(self, pod: Pod, *, waited_s: float) -> None:
        """Count a request that the pod left without an answer until its deadline; too many in a row eject the pod."""
        if self._ejection.timed_out(self.pods, pod, self.now(), waited_s=waited_s):
            self.on_change()

    def eject(self, pod: Pod, why: str) -> None:
        """Take a pod out for a while, at once; one that is out already stays as it is."""
        if self._ejection.eject(self.pods, pod, why, self.now()):
            self.on_change()

    def _note_ready(self, pod: Pod, ready: frozenset[VersionKey]) -> None:
        for key in pod.ready_versions - ready:
            pods = self._ready[key]
            pods.discard(pod)
            if not pods:
                del self._ready[key]
        for key in ready - pod.ready_versions:
            self._ready.setdefault(key, set()).add(pod)
        pod.ready_versions = ready


def _kind(status: PodStatus) -> tuple[object, ...]:
    return status.backend, status.serves, status.pool
