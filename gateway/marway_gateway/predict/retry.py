"""Which failed attempts are made again, and what the caller is told when none is left.

Only failures that say nothing about the request are followed by another attempt (gRPC proposal A6, Envoy's retry
policy): an attempt that no pod accepted costs nothing and is made again at once, at most once a pod; one that was lost
with its pod may have been running and counts against a budget (`RetryBudget`). What the model or the pod said about
the request itself is final.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from marway.errors import InvalidRequest, MarwayError, ModelError, NoPodAvailable, NoRoomToSpare, Unavailable
from marway.graphs import TABLE_BACKEND
from marway.wire.headers import Outcome
from marway.wire.problems import parse_problem
from marway_gateway.observe.metrics import Metrics
from marway_gateway.placement import PlacementSpec, Pod, PodSet, VersionKey
from marway_gateway.predict.admission import next_turn
from marway_gateway.predict.body_hints import hinted
from marway_gateway.predict.call import CandidateLost, PredictCall
from marway_gateway.transport.base import AttemptFailed, PodUnreachable
from marway_gateway.transport.reply import Reply
from marway_http.eager import in_task

__all__ = ["FailedAttempt", "Retries", "RetryBudget", "in_turn", "lost_attempt", "nobody_left", "refused_attempt"]

T = TypeVar("T")

_RETRY_AFTER_S: Final = 1.0
_WORKER_DIED: Final = "worker_died"
"""Reason of an attempt whose worker died; one more may follow it, on any pod."""
_FINAL: Final = frozenset({Outcome.MODEL_ERROR, Outcome.REFUSED, Outcome.FAILED})
"""What a pod says of the request itself, so that no other need be asked."""
_RETRIABLE: Final = {
    Outcome.NOT_ACCEPTED: ("not_accepted", False),
    Outcome.RUNTIME_DOWN: ("runtime_down", True),
    Outcome.WORKER_DIED: (_WORKER_DIED, True),
}
"""What another attempt may follow: the reason, and whether the pod may have started on the request."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that another may follow.

    Attributes:
        pod: Who was asked.
        reason: One word for metrics.
        error: What it ended in; its message begins with the pod's name.
        accepted: Whether the pod may have started on the request.
    """

    pod: Pod
    reason: str
    error: Unavailable
    accepted: bool


def lost_attempt(pods: PodSet, pod: Pod, failure: AttemptFailed, spec: PlacementSpec) -> FailedAttempt:
    """Return the attempt that a pod did not answer, and tell the pods."""
    accepted = not isinstance(failure, PodUnreachable)
    if not accepted:
        pods.unreachable(pod, failure.why)
    elif failure.counted:
        pods.lost(pod, failure.why)
    name, version = spec.key
    error = Unavailable(f"pod {pod.name} {failure.why}", model=name, version=version)
    return FailedAttempt(pod, failure.reason, error, accepted)


def refused_attempt(pods: PodSet, pod: Pod, reply: Reply, call: PredictCall, spec: PlacementSpec) -> FailedAttempt:
    """Return the attempt that a pod answered otherwise than with the model's answer, and tell the pods.

    Raises:
        MarwayError: What it said is final.
    """
    retriable = _RETRIABLE.get(reply.outcome or "")
    if retriable is None and reply.outcome not in _FINAL:
        # Something between us and the sidecar answered, or what listens there is none.
        why = f"answered with status {reply.status}, but not as a sidecar does"
        return lost_attempt(pods, pod, AttemptFailed(why, reason="bad_answer"), spec)
    if reply.outcome == Outcome.RUNTIME_DOWN:
        pods.eject(pod, "its model server is down")
    else:
        pod.succeeded()
    error = parse_problem(reply.data or b"", status=reply.status, retry_after_s=reply.retry_after_s)
    if retriable is None:
        raise hinted(error, call)
    reason, accepted = retriable
    kind = type(error) if isinstance(error, Unavailable) else Unavailable
    named = kind(
        f"pod {pod.name}: {error.message}",
        model=error.model,
        version=error.version,
        retry_after_s=reply.retry_after_s,
    )
    return FailedAttempt(pod, reason, named, accepted)


def nobody_left(spec: PlacementSpec, failed: Sequence[FailedAttempt], troubles: str) -> MarwayError:
    """Return what to tell the caller when no pod is left to ask; ``troubles`` say why none was asked, if none was."""
    reasons = "; ".join(attempt.error.message for attempt in failed) or troubles
    waits = [attempt.error.retry_after_s for attempt in failed if attempt.error.retry_after_s is not None]
    name, version = spec.key
    if spec.backend == TABLE_BACKEND:
        return InvalidRequest(
            f"{name} {version} is a table, which is not asked itself: a graph's node of kind lookup reads its rows",
            model=name,
            version=version,
        )
    return NoPodAvailable(
        f"no pod can take {name} {version} now: {reasons}",
        model=name,
        version=version,
        retry_after_s=min(waits, default=None),
    )


async def in_turn(call: PredictCall, spec: PlacementSpec, turn: Callable[[], Awaitable[T]]) -> T:
    """Have a call wait for its turn, or for room on a pod, and note when it did; refuse one that is not to wait.

    Raises:
        NoRoomToSpare: It gives way to all others.
        CandidateLost: It is a candidate's, and the base may have room.
    """
    if call.base is not None:
        raise CandidateLost
    info = call.info
    if info.role in ("batch", "shadow"):
        name, version = spec.key
        message = f"other requests for {name} {version} take all the room there is, and this one gives way to them"
        raise NoRoomToSpare(message, model=name, version=version, retry_after_s=_RETRY_AFTER_S)
    began = time.perf_counter()
    try:
        return await turn()
    finally:
        info.waits = (*info.waits, (began, time.perf_counter()))


class RetryBudget:
    """Bounds the retries under way, and spreads them in time.

    The bound is Envoy's: retries under way, their pauses included, are at most a share of the requests under way, so
    that an outage is not made worse by what it causes. A retry over it waits for another to end, a bounded time.

    Args:
        percent: Of the requests under way, how many may be retries.
        minimum: Retries that are allowed however few requests are under way.
        backoff_s: The longest pause before a first retry; before each further one it is twice as long.
        backoff_max_s: The longest pause at all.
        wait_s: How long a retry over the budget waits for its turn.
        requests: Says how many requests are under way.
    """

    def __init__(
        self,
        *,
        percent: int,
        minimum: int,
        backoff_s: float,
        backoff_max_s: float,
        wait_s: float,
        requests: Callable[[], int],
    ) -> None:
        self._requests = requests
        self._percent = percent
        self._minimum = minimum
        self._backoff_s = backoff_s
        self._backoff_max_s = backoff_max_s
        self._wait_s = wait_s
        self._retrying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, number: int) -> bool:
        """Wait for a place in the budget and then for the pause before a request's ``number``-th retry.

        Return whether there was a place, which `leave` gives back; without one there must be no retry.
        """
        await in_task()
        try:
            async with asyncio.timeout(self._wait_s):
                while self._retrying >= max(self._minimum, self._requests() * self._percent // 100):
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(turn)
                    await turn
        except TimeoutError:
            return False
        finally:
            # Whoever was woken and did not stay passes it on; with room for more than one, the next follows.
            next_turn(self._waiting)
        self._retrying += 1
        try:
            # Full jitter: requests that failed together must not come back together.
            await asyncio.sleep(random.uniform(0, min(self._backoff_s * 2 ** (number - 1), self._backoff_max_s)))
        except BaseException:
            self.leave()
            raise
        return True

    def leave(self) -> None:
        """Give a place back."""
        self._retrying -= 1
        next_turn(self._waiting)


class Retries:
    """The failed attempts of one request, and whether another may follow; `end` ends them.

    Args:
        max_retries: How many further attempts may follow ones that a pod had accepted.

    Attributes:
        tried: Pods that were asked.
        failed: What came of that, in order.
    """

    def __init__(self, budget: RetryBudget, metrics: Metrics, *, max_retries: int) -> None:
        self.tried: frozenset[Pod] = frozenset()
        self.failed: list[FailedAttempt] = []
        self._budget = budget
        self._metrics = metrics
        self._left = max_retries
        self._in_budget = False

    async def add(self, attempt: FailedAttempt, *, repeatable: bool) -> None:
        """Take in a failure; return when another attempt may be made.

        Raises:
            Unavailable: The failure's own error, because the request may not be sent again, or its body cannot.
            ModelError: It has killed its worker twice.
        """
        self.end()
        error = attempt.error
        if attempt.reason == _WORKER_DIED and any(earlier.reason == _WORKER_DIED for earlier in self.failed):
            # Once may be chance; what kills two workers must not be given a third, nor be asked to come back.
            raise ModelError(
                f"the request killed two workers in a row: {error.message}", model=error.model, version=error.version
            )
        self.failed.append(attempt)
        self.tried |= {attempt.pod}
        self._left -= attempt.accepted
        if not repeatable or self._left < 0:
            raise error
        if attempt.accepted:
            # What no pod accepted cost nothing and goes on at once; all else is a retry and on the budget.
            self._in_budget = await self._budget.enter(sum(each.accepted for each in self.failed))
            if not self._in_budget:
                self._metrics.retries_refused.inc()
                raise error

    def pod_again(self, now: float) -> Pod | None:
        """Return a pod that may be asked again when nobody else is left: one whose worker died has others."""
        last = self.failed[-1]
        return last.pod if last.reason == _WORKER_DIED and last.pod.healthy(now) else None

    def begin(self, pod: Pod, key: VersionKey) -> None:
        """Take in that another attempt begins."""
        if pod.has_to_load(key):
            # Waiting for a load is not what retries are bounded for: one load serves all who wait for it.
            self.end()
        self._metrics.retries.labels(self.failed[-1].reason).inc()

    def end(self) -> None:
        """Take in that no attempt is under way: give the place in the budget back, if it has one."""
        if self._in_budget:
            self._in_budget = False
            self._budget.leave()
