"""Which pods may serve a version, in which order they come, and who of them is asked next.

The order is that of rendezvous hashing (Thaler and Ravishankar, 1998): each pod gets a score from its name and the
version, and the eligible pods in falling order of score are the version's list. Every gateway computes the same list
with no word between them, and a pod that comes or goes moves only the versions that it wins or held. What a pod is
(backend, engine, pool) decides whether it is in the list; its health decides only whether it is asked, so a version
returns to its home when that is well again.

Load is bounded as in consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016), which Envoy and
HAProxy call `hash_balance_factor`: a pod is full for a version when it works on too many of its requests, or on more
than its share of all; then the next pod of the list serves the version as well.

A pod serves a version only once it has it ready, as long as another one does: who should serve and cannot yet is named
to `on_missing`, which has it loaded ahead. So does a pod that drains: for versions that nobody else has ready yet it is
asked as long as it takes requests, as kube-proxy goes on to use terminating endpoints while there are no others
(Kubernetes KEP-1669).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from operator import attrgetter
from typing import Final, NamedTuple

from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway_gateway.placement.pod import Load, Pod, VersionKey
from marway_gateway.placement.sequence_home import KeptSequence, sequence_home

__all__ = ["NOBODY", "PlacementSpec", "PodChoice", "placement_spec", "score"]

_ANY_OTHER: Final = "*"
_ORDERS_MAX: Final = 20_000
_USED_MAX: Final = 1000
NOBODY: Final[frozenset[Pod]] = frozenset()
_in_flight = attrgetter("requests_in_flight")


class PlacementSpec(NamedTuple):
    """A version, and which pods may serve it.

    Attributes:
        key: The model's name and the version.
        backend: What a pod must serve, or None for anything; one that has not said yet may serve it.
        pool: The pool that a pod must be of, or None for any.
        engine: The backend that a pod must be of, or None for any that serves ``backend``.
        pods: How many pods serve it in normal load.
        sequence: Whose requests one pod gets, as a state is kept there; None for requests that any pod may answer.
        ready_only: Whether only pods are asked that have it ready, and nobody waits for a load.
    """

    key: VersionKey
    backend: str | None = None
    pool: str | None = None
    engine: str | None = None
    pods: int = 1
    sequence: str | KeptSequence | None = None
    ready_only: bool = False


def placement_spec(
    record: VersionRecord,
    serving: ServingSettings,
    algorithm_pools: Mapping[str, str],
    *,
    sequence: str | KeptSequence | None = None,
    ready_only: bool = False,
) -> PlacementSpec:
    """Return which pods may serve a version now.

    Its pool is the one of its serving settings, else of its record, else the one that ``algorithm_pools`` gives its
    algorithm, or any other (``*``). ``sequence`` and ``ready_only`` are as `PlacementSpec` has them.
    """
    pool = serving.pool or record.pool
    if pool is None and algorithm_pools:
        pool = algorithm_pools.get(record.algorithm or _ANY_OTHER) or algorithm_pools.get(_ANY_OTHER)
    key = record.name, record.version
    return PlacementSpec(key, record.backend, pool, serving.engine, serving.pods, sequence, ready_only)


def score(pod: str, name: str, version: str) -> int:
    """Return a pod's score for a version: 64 bits of BLAKE2b, the same on every machine and in every process."""
    digest = blake2b(f"{pod}\0{name}\0{version}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class PodChoice:
    """The pods, each version's order of them, and who of them is asked next; `PodSet` keeps it informed.

    Args:
        spill_requests: Requests of one version in flight on a pod from which on the next pod serves it as well.
        spill_factor: A pod with more than so many times the mean of requests in flight has more than its share.
        max_requests: Requests in flight on one pod beyond which it gets none; None means no bound.
        clock: Monotonic seconds; `now` gives them.

    Attributes:
        pods: All pods.
        load: Their requests in flight.
        on_missing: Told a pod that should serve a version and does not have it ready, while it goes elsewhere.
    """

    def __init__(
        self, *, spill_requests: int, spill_factor: float, max_requests: int | None, clock: Callable[[], float]
    ) -> None:
        self.pods: tuple[Pod, ...] = ()
        self.on_missing: Callable[[Pod, PlacementSpec], None] = lambda pod, spec: None
        self.now = clock
        self._spill_requests = spill_requests
        self._spill_factor = spill_factor
        self._max_requests = max_requests
        self.load = Load()
        self._ready: dict[VersionKey, set[Pod]] = {}
        self._orders: OrderedDict[tuple[object, ...], tuple[Pod, ...]] = OrderedDict()
        self._used: OrderedDict[VersionKey, tuple[PlacementSpec, float]] = OrderedDict()

    def order_of(self, spec: PlacementSpec) -> tuple[Pod, ...]:
        """Return the pods that may serve a version as it asks for now, its home first."""
        which = spec[:4]
        order = self._orders.get(which)
        if order is None:
            eligible = (pod for pod in self.pods if pod.may_serve(spec.backend, spec.pool, spec.engine))
            by_score = sorted(eligible, key=lambda pod: (score(pod.name, *spec.key), pod.name), reverse=True)
            order = self._orders[which] = tuple(by_score)
            if len(self._orders) > _ORDERS_MAX:
                self._orders.popitem(last=False)
        return order

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

        The requests of a sequence have one pod (`sequence_home`). With ``spec.ready_only`` it is one that has the
        version ready, or nobody.
        """
        order, now, key = self.order_of(spec), self.now(), spec.key
        self._used[key] = spec, now
        self._used.move_to_end(key)
        if len(self._used) > _USED_MAX:
            self._used.popitem(last=False)
        if spec.sequence is not None and (home := sequence_home(spec, order, now, tried=tried, score=score)):
            return None if self._at_limit(home) else home
        wanted = self._wanted(spec, tried, order, now)
        if not wanted:
            if any(pod.healthy(now) for pod in order):
                return None
            pod = self._handing_over(key, order, tried, now)
            return pod if spec.ready_only else pod or self._in_panic(order, tried)
        ready = self._ready.get(key, NOBODY)
        serving = [pod for pod in wanted if pod in ready]
        chosen: Pod | None
        if len(serving) > 1:
            chosen = min([pod for pod in serving if not self._full(pod, key, order)] or serving, key=_in_flight)
        elif serving:
            chosen = serving[0]
        else:
            elsewhere = [pod for pod in ready if pod.healthy(now) and pod not in tried and not self._at_limit(pod)]
            healthy = min((pod for pod in elsewhere if pod in order), key=order.index, default=None)
            chosen = healthy or self._handing_over(key, order, tried, now)
            if chosen is None and not spec.ready_only:
                chosen = wanted[0]
        if len(serving) < len(wanted):
            for pod in wanted:
                if pod is not chosen and pod not in ready:
                    self.on_missing(pod, spec)
        return chosen

    def _handing_over(self, key: VersionKey, order: tuple[Pod, ...], tried: Collection[Pod], now: float) -> Pod | None:
        """Return the first pod that drains, has a version ready and may still take a request for it."""
        ready = self._ready.get(key, NOBODY)
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
        requests = self.load.requests if everybody else sum(pod.requests_in_flight for pod in order)
        return pod.requests_in_flight > self._spill_factor * requests / len(order)
