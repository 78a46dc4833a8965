"""The one predict call that every surface shares: resolve, place, forward, and place again when a pod fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from marway.errors import MarwayError, Unavailable
from marway.resolve.resolver import Resolved, Resolver
from marway.wire.headers import Outcome
from marway.wire.problems import parse_problem
from marway_gateway.cache import AnswerCache, CacheUse, request_key
from marway_gateway.call import Answer, PredictCall, too_late
from marway_gateway.limits import Admission
from marway_gateway.placement import Demand, Pod, PodSet, demand_of
from marway_gateway.reply import AttemptFailed, PodUnreachable, Reply
from marway_gateway.retry import WORKER_DIED, Attempts, FailedAttempt, RetryBudget
from marway_gateway.telemetry import Telemetry
from marway_gateway.upstream import Upstream, answered, reply_of
from marway_gateway.upstream.connection import Connection
from marway_gateway.upstream.response import Response, Waiter

__all__ = ["Predictor", "Sent"]

_FINAL = frozenset({Outcome.MODEL_ERROR, Outcome.REFUSED, Outcome.FAILED})


@dataclass(slots=True)
class Sent:
    """A call that was sent to a pod with nothing to wait for.

    Attributes:
        call: The call.
        demand: What its version asks for; it counts as one of that version's until `finish` or the end of `resume`.
        pod: Who was asked.
        connection: Where.
        began: When, by `time.perf_counter`.
    """

    call: PredictCall
    demand: Demand
    pod: Pod
    connection: Connection
    began: float


class Predictor:
    """Makes predict calls.

    `predict` does that as a coroutine. Where nothing needs waiting for but the pod, `begin` and `finish` do the same
    without one, and `resume` goes on as a coroutine where something does after all.

    Args:
        resolver: From reference to version.
        pods: From version to pods.
        upstream: From pod to answer.
        telemetry: Told about attempts.
        admission: Limits how many requests are worked on.
        budget: Limits how many of them are retries.
        max_retries: Attempts after one that a pod had accepted.
        algorithm_pools: Pools of versions that name none, by algorithm.
        used: Told which versions are requested.
        cache: Answers of models whose serving settings say so; None keeps none.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        pods: PodSet,
        upstream: Upstream,
        telemetry: Telemetry,
        admission: Admission,
        budget: RetryBudget,
        max_retries: int,
        algorithm_pools: Mapping[str, str],
        used: Callable[[Demand], None],
        cache: AnswerCache | None = None,
    ) -> None:
        self._resolver = resolver
        self._pods = pods
        self._upstream = upstream
        self._metrics = telemetry.metrics
        self._admission = admission
        self._budget = budget
        self._max_retries = max_retries
        self._algorithm_pools = algorithm_pools
        self._used = used
        self._cache = cache

    async def predict(self, call: PredictCall) -> Answer:
        """Return the model's answer, whatever its status; the caller closes it.

        Raises:
            InvalidReference, NotFound: There is no such version.
            InvalidRequest, BodyTooLarge: The body cannot be used.
            ModelError: The model's code failed.
            DeadlineExceeded: The call's deadline passed.
            Unavailable: No pod could answer; trying again later may help.
            ClientGone: The caller went away while sending the body.
        """
        try:
            async with asyncio.timeout(call.deadline - time.monotonic()):
                return await self.predict_watched(call)
        except TimeoutError as exc:
            raise too_late(call) from exc

    async def predict_watched(self, call: PredictCall) -> Answer:
        """Do as `predict`, for a caller that cancels this at the call's deadline."""
        try:
            resolved = await self._resolve(call)
            await call.body.open()
            reply = await self._answer(call, resolved)
        finally:
            call.info.request_bytes = call.body.size
        return _answer_of(reply, call)

    def begin(self, call: PredictCall, waiter: Waiter) -> Sent | None:
        """Send a call to a pod, if nothing on the way there needs waiting; None, as if it were unseen, when something
        does.

        Args:
            call: The call; its body is in memory.
            waiter: Given the pod's response, for `finish`, or the failure, for `resume`.
        """
        began = time.perf_counter()
        resolved = self._resolver.lookup(call.name, call.selector)
        if resolved is None or resolved.serving.cache or resolved.serving.streaming:
            return None
        _resolved_to(call, resolved, began)
        demand = demand_of(resolved.record, resolved.serving, self._algorithm_pools)
        if not self._admission.try_enter(demand.key):
            return None
        sent = None
        try:
            pod = self._pods.choose(demand)
            if pod is not None:
                began = _asking(pod, call)
                connection = self._upstream.send(
                    pod,
                    *demand.key,
                    headers=call.headers,
                    body=call.body,
                    timeout_s=call.deadline - time.monotonic(),
                    waiter=waiter,
                )
                if connection is not None:
                    sent = Sent(call, demand, pod, connection, began)
        finally:
            if sent is None:
                self._admission.leave(demand.key)
        if sent is not None:
            self._used(demand)
        return sent

    def finish(self, sent: Sent, response: Response) -> Answer | None:
        """Return the answer to what `begin` has sent, if it is the model's and whole; when None, `resume` must go on."""
        if not answered(response):
            return None
        call, key = sent.call, sent.demand.key
        reply = reply_of(response, sent.pod, key)
        call.info.pod_s = time.perf_counter() - sent.began
        self._pods.succeeded(sent.pod)
        self._admission.leave(key)
        call.info.request_bytes = call.body.size
        return _answer_of(reply, call)

    async def resume(self, sent: Sent, waiter: asyncio.Future[Response]) -> Answer:
        """Do as `predict_watched` from where `begin` got to.

        Args:
            sent: What was begun.
            waiter: Has, or is going to have, what the waiter of `begin` was given.
        """
        call, pod, key = sent.call, sent.pod, sent.demand.key
        asking = self._upstream.resume(sent.connection, waiter, pod, *key)
        try:
            try:
                result = await self._judged(asking, pod, call, *key, began=sent.began)
                reply = result if isinstance(result, Reply) else await self._place_again(call, sent.demand, result)
            finally:
                self._admission.leave(key)
        finally:
            call.info.request_bytes = call.body.size
        return _answer_of(reply, call)

    async def _resolve(self, call: PredictCall) -> Resolved:
        began = time.perf_counter()
        resolved = None
        try:
            resolved = self._resolver.lookup(call.name, call.selector)
            if resolved is None:
                resolved = await self._resolver.resolve(call.name, call.selector)
        finally:
            _resolved_to(call, resolved, began)
        return resolved

    async def _answer(self, call: PredictCall, resolved: Resolved) -> Reply:
        """Return a kept answer where the model allows that and there is one, else a pod's."""
        serving, body = resolved.serving, call.body.whole
        if not serving.cache:
            return await self._forward(call, resolved)
        if self._cache is None or body is None or serving.streaming or call.fresh:
            self._count(call, CacheUse.BYPASS)
            return await self._forward(call, resolved)
        key = request_key(resolved.record.archive.sha256, call.headers, body)
        use = CacheUse.MISS
        try:
            reply, use = await self._cache.reply(key, lambda: self._forward(call, resolved))
        finally:
            self._count(call, use)
        return reply

    def _count(self, call: PredictCall, use: CacheUse) -> None:
        call.info.cache = use.value
        self._metrics.cache_requests.labels(use.value).inc()

    async def _forward(self, call: PredictCall, resolved: Resolved) -> Reply:
        demand = demand_of(resolved.record, resolved.serving, self._algorithm_pools)
        self._used(demand)
        if not self._admission.try_enter(demand.key):
            await self._admission.enter(demand.key)
        try:
            pod = self._pods.choose(demand)
            result = await self._attempt(pod, call, *demand.key) if pod is not None else None
            return result if isinstance(result, Reply) else await self._place_again(call, demand, result)
        finally:
            self._admission.leave(demand.key)

    async def _place_again(self, call: PredictCall, demand: Demand, failed: FailedAttempt | None) -> Reply:
        """Ask one pod after the other, after a first attempt that failed or for which there was no room."""
        attempts = Attempts(max_retries=self._max_retries)
        async with AsyncExitStack() as retrying:
            while True:
                if failed is not None:
                    attempts.add(failed, repeatable=call.body.repeatable)
                    # What no pod accepted cost nothing and goes on at once; all else is a retry and on the budget.
                    if failed.accepted and not await retrying.enter_async_context(self._budget.retry(attempts.retries)):
                        self._metrics.retries_refused.inc()
                        raise failed.error
                pod = await self._admission.pod_for(demand.key, lambda: self._choose(demand, attempts))
                if failed is not None:
                    self._metrics.retries.labels(failed.reason).inc()
                result = await self._attempt(pod, call, *demand.key)
                await retrying.aclose()
                if isinstance(result, Reply):
                    return result
                failed = result

    def _choose(self, demand: Demand, attempts: Attempts) -> Pod | None:
        """Return the pod to ask next, or None while all that are left have as many requests as they may have.

        Raises:
            NoPodAvailable: Nobody is left.
        """
        pod = self._pods.choose(demand, tried=attempts.tried)
        if pod is not None:
            return pod
        last = attempts.last
        if last is not None and last.reason == WORKER_DIED and last.pod.healthy(self._pods.now()):
            return last.pod  # nobody else is left, and it has other workers
        if self._pods.saturated(demand, tried=attempts.tried):
            return None
        name, version = demand.key
        raise attempts.exhausted(model=name, version=version, troubles=self._pods.troubles(demand))

    async def _attempt(self, pod: Pod, call: PredictCall, name: str, version: str) -> Reply | FailedAttempt:
        """Ask one pod; return and raise as `_judged`."""
        began = _asking(pod, call)
        asking = self._upstream.predict(
            pod, name, version, headers=call.headers, body=call.body, timeout_s=call.deadline - time.monotonic()
        )
        return await self._judged(asking, pod, call, name, version, began=began)

    async def _judged(
        self, asking: Awaitable[Reply], pod: Pod, call: PredictCall, name: str, version: str, *, began: float
    ) -> Reply | FailedAttempt:
        """Wait for what a pod says, tell the pods what that says of it, and return the model's answer or a failure.

        Raises:
            MarwayError: What the pod said of the request is final.
        """
        try:
            reply = await asking
        except AttemptFailed as exc:
            return self._failed(pod, exc, name, version)
        except asyncio.CancelledError:
            # By the deadline, or by a client that went away, which says nothing of the pod.
            if time.monotonic() >= call.deadline:
                self._pods.timed_out(pod, waited_s=time.perf_counter() - began)
            raise
        finally:
            call.info.pod_s = time.perf_counter() - began
        if reply.outcome == Outcome.ANSWERED:
            self._pods.succeeded(pod)
            return reply
        error = parse_problem(reply.data or b"", status=reply.status, retry_after_s=reply.retry_after_s)
        if reply.outcome in _FINAL:
            self._pods.succeeded(pod)
            raise error
        if reply.outcome == Outcome.NOT_ACCEPTED:
            self._pods.succeeded(pod)
            return FailedAttempt(pod, "not_accepted", _said(pod, error, reply), accepted=False)
        if reply.outcome == Outcome.RUNTIME_DOWN:
            self._pods.eject(pod, "its model server is down")
            return FailedAttempt(pod, "runtime_down", _said(pod, error, reply), accepted=True)
        if reply.outcome == Outcome.WORKER_DIED:
            self._pods.succeeded(pod)
            return FailedAttempt(pod, WORKER_DIED, _said(pod, error, reply), accepted=True)
        # Something between us and the sidecar answered, or what listens there is none.
        return self._failed(
            pod,
            AttemptFailed(f"answered with status {reply.status}, but not as a sidecar does", reason="bad_answer"),
            name,
            version,
        )

    def _failed(self, pod: Pod, failure: AttemptFailed, name: str, version: str) -> FailedAttempt:
        accepted = not isinstance(failure, PodUnreachable)
        if accepted:
            self._pods.lost(pod, failure.why)
        else:
            self._pods.unreachable(pod, failure.why)
        error = Unavailable(f"pod {pod.name} {failure.why}", model=name, version=version)
        return FailedAttempt(pod, failure.reason, error, accepted)


def _resolved_to(call: PredictCall, resolved: Resolved | None, began: float) -> None:
    info = call.info
    info.resolve_s = time.perf_counter() - began
    if resolved is not None:
        record = resolved.record
        info.model, info.version, info.model_id = record.name, record.version, record.id
        info.label = resolved.label


def _asking(pod: Pod, call: PredictCall) -> float:
    """Note that a pod is asked now; return when that is."""
    call.info.pod = pod.name
    call.info.attempts += 1
    return time.perf_counter()


def _answer_of(reply: Reply, call: PredictCall) -> Answer:
    if reply.status >= 400:
        call.info.outcome = "model_error"
    return Answer(reply, call)


def _said(pod: Pod, error: MarwayError, reply: Reply) -> Unavailable:
    """Return what a pod said as an error of the same kind that names the pod."""
    kind = type(error) if isinstance(error, Unavailable) else Unavailable
    return kind(
        f"pod {pod.name}: {error.message}",
        model=error.model,
        version=error.version,
        retry_after_s=reply.retry_after_s,
    )
