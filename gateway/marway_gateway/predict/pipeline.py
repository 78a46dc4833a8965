"""The one predict call that every surface shares: resolve, place, forward, and place again when a pod fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from marway.resolve.resolver import Resolved, Resolver
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.placement import Demand, Pod, PodSet, demand_of
from marway_gateway.predict.admission import Admission
from marway_gateway.predict.attempt import Asker, Asking, Waiter
from marway_gateway.predict.cache import AnswerCache, CacheUse, request_key
from marway_gateway.predict.call import Answer, PredictCall, too_late
from marway_gateway.predict.retry import WORKER_DIED, Attempts, FailedAttempt, RetryBudget
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import Reply
from marway_gateway.transport.slow_upload import SlowUpload

__all__ = ["Predictor"]


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
        self._asker = Asker(upstream, pods)
        self._metrics = telemetry.metrics
        self._admission = admission
        self._budget = budget
        self._max_retries = max_retries
        self._algorithm_pools = algorithm_pools
        self._used = used
        self._cache = cache
        self._cache_uses = {use: telemetry.metrics.cache_requests.labels(use.value) for use in CacheUse}

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

    def known(self, call: PredictCall) -> Resolved | None:
        """Return what a call's reference stands for, where that needs no waiting."""
        began = time.perf_counter()
        resolved = self._resolver.lookup(call.name, call.selector)
        _resolved_to(call, resolved, began)
        return resolved

    def kept(self, call: PredictCall, resolved: Resolved) -> Answer | None:
        """Return the answer to a call whose body is in memory, where it is kept; None, as if it were unseen, if not."""
        body = call.body.whole
        if not resolved.serving.cache or resolved.serving.streaming:
            return None
        if body is None or self._cache is None or call.fresh:
            return None
        reply = self._cache.kept(request_key(resolved.record.archive.sha256, call.headers, body))
        if reply is None:
            return None
        self._count(call, CacheUse.HIT)
        call.info.request_bytes = call.body.size
        return _answer_of(reply, call)

    def begin(self, call: PredictCall, resolved: Resolved, waiter: Waiter) -> Asking | None:
        """Send a call to a pod, if nothing on the way there needs waiting; None, as if it were unseen, when something
        does.

        Args:
            call: The call; its body is in memory.
            resolved: What its reference stands for.
            waiter: Given the pod's response, for `finish`, or the failure, for `resume`.
        """
        kept = resolved.serving.cache
        if resolved.serving.streaming or (kept and self._cache is not None and not call.fresh):
            return None  # its answer may be kept, or is one that others wait for
        demand = demand_of(resolved.record, resolved.serving, self._algorithm_pools)
        if not self._admission.try_enter(demand.key):
            return None
        self._used(demand)
        asking = None
        try:
            pod = self._pods.choose(demand)
            asking = self._asker.begin(pod, call, demand, waiter) if pod is not None else None
        finally:
            if asking is None:
                self._admission.leave(demand.key)
            elif kept:
                self._count(call, CacheUse.BYPASS)
        return asking

    def finish(self, asking: Asking, response: Reply) -> Answer | None:
        """Return the answer to what was begun, if it is the model's and whole; when None, `resume` must go on."""
        reply = self._asker.finish(asking, response)
        if reply is None:
            return None
        self._admission.leave(asking.demand.key)
        call = asking.call
        call.info.request_bytes = call.body.size
        return _answer_of(reply, call)

    async def resume(self, asking: Asking, waiter: asyncio.Future[Reply]) -> Answer:
        """Do as `predict_watched` from where `begin` got to.

        Args:
            asking: What was begun.
            waiter: Has, or is going to have, what the waiter of `begin` was given.
        """
        call = asking.call
        try:
            reply = await self._entered(call, asking.demand, self._asker.resume(asking, waiter))
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
        self._cache_uses[use].inc()

    async def _forward(self, call: PredictCall, resolved: Resolved) -> Reply:
        demand = demand_of(resolved.record, resolved.serving, self._algorithm_pools)
        self._used(demand)
        if not self._admission.try_enter(demand.key):
            await self._admission.enter(demand.key)
        return await self._entered(call, demand, self._first(call, demand))

    async def _first(self, call: PredictCall, demand: Demand) -> Reply | FailedAttempt | None:
        """Ask the first pod, or None where there is no room on any."""
        pod = self._pods.choose(demand)
        return await self._asker.ask(pod, call, demand) if pod is not None else None

    async def _entered(
        self, call: PredictCall, demand: Demand, first: Awaitable[Reply | FailedAttempt | None]
    ) -> Reply:
        """Wait for the first attempt of a call that has entered, make others if need be, and leave."""
        key, admission = demand.key, self._admission
        try:
            if call.body.ended:
                result = await first
                return result if isinstance(result, Reply) else await self._place_again(call, demand, result)
            with SlowUpload(call.body, aside=lambda: admission.leave(key), back=lambda: admission.enter_anyhow(key)):
                result = await first
                return result if isinstance(result, Reply) else await self._place_again(call, demand, result)
        finally:
            admission.leave(key)

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
                if pod.has_to_load(demand.key):
                    # Waiting for a load is not what retries are bounded for: one load serves all who wait for it.
                    await retrying.aclose()
                if failed is not None:
                    self._metrics.retries.labels(failed.reason).inc()
                result = await self._asker.ask(pod, call, demand)
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


def _resolved_to(call: PredictCall, resolved: Resolved | None, began: float) -> None:
    info = call.info
    info.resolve_s = time.perf_counter() - began
    if resolved is not None:
        record = resolved.record
        info.model, info.version, info.model_id = record.name, record.version, record.id
        info.label = resolved.label


def _answer_of(reply: Reply, call: PredictCall) -> Answer:
    if reply.status >= 400:
        call.info.outcome = "model_error"
    return Answer(reply, call)
