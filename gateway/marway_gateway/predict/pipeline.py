"""The one predict call that every surface shares: resolve, cache, admission, and a pod that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from marway.resolve.resolver import Resolved, Resolver
from marway_gateway.placement import PlacementSpec, placement_spec
from marway_gateway.predict.admission import Admission
from marway_gateway.predict.cache import CachedAnswers
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.predict.cancel_scope import CancelScope, DeadlineTimer, TaskTarget
from marway_gateway.predict.retry import RetryLoop
from marway_gateway.transport.base import Reply
from marway_gateway.transport.slow_upload import SlowUpload
from marway_http.channel import Channel
from marway_http.eager import in_task

__all__ = ["Predictor"]


class Predictor:
    """Makes predict calls.

    A step that need not wait does not: with the version known and a place free, a call waits for its pod alone. One
    that has to wait for anything else goes on in a task of its own first (`in_task`).

    Args:
        resolver: From reference to version.
        cached: Answers that are given again.
        admission: Limits how many requests are worked on.
        retries: From version to a pod's answer.
        algorithm_pools: Pools of versions that name none, by algorithm.
        used: Told which versions are requested.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        cached: CachedAnswers,
        admission: Admission,
        retries: RetryLoop,
        algorithm_pools: Mapping[str, str],
        used: Callable[[PlacementSpec], None],
    ) -> None:
        self._resolver = resolver
        self._cached = cached
        self._admission = admission
        self._retries = retries
        self._algorithm_pools = algorithm_pools
        self._used = used
        self._timer = DeadlineTimer()

    def scope(self, call: PredictCall, channel: Channel | None = None) -> CancelScope:
        """Return what ends a call at its deadline, or when its client leaves.

        Args:
            call: The call.
            channel: Its request's, or None for what has a task of its own and ends itself when its client leaves.
        """
        return CancelScope(self._timer, call, TaskTarget() if channel is None else channel)

    async def resolve(self, call: PredictCall) -> Resolved:
        """Return what a call's name and selector stand for.

        Raises:
            InvalidReference, NotFound: There is no such version.
            RegistryUnavailable: The registry does not answer.
        """
        info = call.info
        began = time.perf_counter()
        try:
            resolved = self._resolver.lookup(call.name, call.selector)
            if resolved is None:
                await in_task()
                resolved = await self._resolver.resolve(call.name, call.selector)
        finally:
            info.resolve_s = time.perf_counter() - began
        record = resolved.record
        info.model, info.version, info.model_id = record.name, record.version, record.id
        info.label = resolved.label
        call.resolved = resolved
        return resolved

    async def predict(self, call: PredictCall) -> Answer:
        """Return the model's answer, whatever its status; the caller closes one that streams.

        It is made within a `scope`, which ends it in time.

        Raises:
            InvalidReference, NotFound: There is no such version.
            InvalidRequest, BodyTooLarge: The body cannot be used.
            ModelError: The model's code failed.
            Unavailable: No pod could answer; trying again later may help.
            ClientGone: The caller went away while sending the body.
        """
        resolved = call.resolved or await self.resolve(call)
        if not call.body.ended:
            await call.body.open()
        if resolved.serving.cache:
            reply = await self._cached.reply(call, resolved, self._from_pods)
        else:
            reply = await self._from_pods(call, resolved)
        if reply.status >= 400:
            call.info.outcome = "model_error"
        return Answer(reply, call)

    async def _from_pods(self, call: PredictCall, resolved: Resolved) -> Reply:
        spec = placement_spec(resolved.record, resolved.serving, self._algorithm_pools)
        key, admission = spec.key, self._admission
        self._used(spec)
        if not admission.try_enter(key):
            await admission.enter(key)
        try:
            if call.body.ended:
                return await self._retries.reply(call, spec)
            with SlowUpload(call.body, aside=lambda: admission.leave(key), back=lambda: admission.enter_anyhow(key)):
                return await self._retries.reply(call, spec)
        finally:
            admission.leave(key)
