"""The one predict call that every surface shares: resolve, cache, admission, and a pod that answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial

from marway.errors import ModelError
from marway.graphs import GRAPH_BACKEND
from marway.resolve.resolved import Resolved, alike
from marway.resolve.resolver import Resolver
from marway.wire.headers import READY_ONLY, Outcome
from marway_gateway.observe.bodies import drawn
from marway_gateway.placement import PlacementSpec, Pod, PodSet, placement_spec
from marway_gateway.predict.admission import Admission
from marway_gateway.predict.cache import AnswerCache
from marway_gateway.predict.call import Answer, CandidateLost, GraphRunner, PredictCall
from marway_gateway.predict.cancel_scope import CancelScope, DeadlineTimer
from marway_gateway.predict.fallback import Fallbacks
from marway_gateway.predict.retry import FailedAttempt, Retries, in_turn, lost_attempt, nobody_left, refused_attempt
from marway_gateway.predict.sequences import Sequences
from marway_gateway.traffic.division import Division
from marway_gateway.traffic.shadow.copies import ShadowCopies
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import AttemptFailed
from marway_gateway.transport.reply import Reply
from marway_gateway.transport.slow_upload import slow_upload
from marway_http.channel import Channel
from marway_http.eager import in_task

__all__ = ["Predictor"]


class Predictor:
    """Makes predict calls.

    A step that need not wait does not: with the version known and a place free, a call waits for its pod alone. One
    that has to wait for anything else goes on in a task of its own first (`in_task`).

    Args:
        pods: Says whom to ask; told of failures and answers.
        division: Says who answers a request of a label that is divided.
        copies: Told of answers of such labels, of which other versions may be sent copies.
        fallbacks: Ask another version in the place of one that has no room.
        graphs: Answers calls of graphs, in the place of pods.
        retries: Makes what says which failed attempts of a request are made again.
        algorithm_pools: Pools of versions that name none, by algorithm.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        cache: AnswerCache,
        admission: Admission,
        pods: PodSet,
        transport: Upstream,
        division: Division,
        copies: ShadowCopies,
        fallbacks: Fallbacks,
        graphs: GraphRunner,
        retries: Callable[[], Retries],
        algorithm_pools: Mapping[str, str],
    ) -> None:
        self._resolver = resolver
        self._cache = cache
        self._admission = admission
        self._pods = pods
        self._transport = transport
        self._division = division
        self._copies = copies
        self._fallbacks = fallbacks
        self._graphs = graphs
        self._retries = retries
        self._algorithm_pools = algorithm_pools
        self._timer = DeadlineTimer()
        self.sequences = Sequences(pods, algorithm_pools)

    def scope(self, call: PredictCall, channel: Channel | None = None) -> CancelScope:
        """Return what ends a call at its deadline, or when the client of its channel leaves."""
        return CancelScope(self._timer, call, channel)

    async def resolve(self, call: PredictCall) -> Resolved:
        """Return what a call's name and selector stand for: of a label that is divided, the version that answers.

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
        if resolved.divided is not None and call.divides:
            base, resolved = resolved, self._division.divide(info, resolved)
            if resolved is not base:
                call.base = base
        if call.base is not None or resolved.serving.fallback is not None:
            call.asked = call.headers, call.body
        record = resolved.record
        info.model, info.version, info.model_id = record.name, record.version, record.id
        info.label = resolved.label
        info.serving = resolved.serving
        call.resolved = resolved
        if info.prediction_id is not None:
            info.observe = drawn(resolved.serving)
        if info.observe != "bodies":
            info.input = None
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
            CandidateLost: As `shaped` in `predict.call` has it; only of a call that was resolved before.
        """
        shaped = call.resolved is not None
        resolved = call.resolved or await self.resolve(call)
        if not call.body.ended:
            await call.body.open()
        info = call.info
        if info.observe == "bodies" and info.input is None:
            info.input = call.body.whole
            if info.input is None:
                info.bodies = "too_large"  # for more than a gateway holds in memory
        try:
            if call.base is not None and (call.sequence is not None or call.base.record.sequences):
                raise CandidateLost  # a sequence has its state where it began, with the base
            reply = await self._reply(call, resolved)
        except ModelError as exc:
            if resolved.divided is not None:
                self._copies.failed(call, exc, shaped=shaped)
            raise
        except CandidateLost:
            if call.base is None:
                raise  # it is the fallback's, which needs another body
            base = call.back_to_base()
            if shaped and not alike(resolved, base):
                call.headers, call.body = call.asked or (call.headers, call.body)
                raise
            reply = await self._reply(call, base)
        if resolved.divided is not None:
            self._copies.answered(call, reply, shaped=shaped)
        if reply.status >= 400:
            info.outcome = "model_error"
        return Answer(reply, call)

    async def _reply(self, call: PredictCall, resolved: Resolved, *, alone: bool = False) -> Reply:
        if resolved.record.sequences is not None:
            return await self.sequences.answer(call, resolved, self._from_pods)
        if resolved.serving.fallback is not None and not alone and call.base is None:
            return await self._fallbacks.answer(call, resolved, partial(self._reply, alone=True))
        if resolved.record.backend == GRAPH_BACKEND:
            return await self._graphs.answer(self, call, resolved)
        if resolved.serving.cache:
            return await self._cache.answer(call, resolved, self._from_pods)
        return await self._from_pods(call, resolved)

    async def _from_pods(self, call: PredictCall, resolved: Resolved) -> Reply:
        of, pools, ready_only = resolved, self._algorithm_pools, call.base is not None
        spec = placement_spec(of.record, of.serving, pools, sequence=call.sequence, ready_only=ready_only)
        key, admission = spec.key, self._admission
        if not admission.try_enter(key):
            await in_turn(call, spec, partial(admission.enter, key))
        try:
            if call.body.ended:
                return await self._first_reply(call, spec)
            with slow_upload(call.body, aside=lambda: admission.leave(key), back=lambda: admission.enter_anyhow(key)):
                return await self._first_reply(call, spec)
        finally:
            admission.leave(key)

    async def _first_reply(self, call: PredictCall, spec: PlacementSpec) -> Reply:
        """Ask one pod after the other until one gives the model's answer.

        Raises:
            MarwayError: What a pod said of the request, or that no pod could answer.
            CandidateLost: It is for a candidate, which no pod that is left can be asked for.
        """
        retries: Retries | None = None  # from the first failure on
        try:
            while True:
                pod = self._choose(call, spec, retries)
                if pod is None:
                    again = partial(self._choose, call, spec, retries)
                    pod = await in_turn(call, spec, partial(self._admission.pod_for, spec.key, again))
                if retries is not None:
                    retries.begin(pod, spec.key)
                reply = await self._ask(pod, call, spec)
                if isinstance(reply, Reply):
                    return reply
                if retries is None:
                    retries = self._retries()
                await retries.add(reply, repeatable=call.body.repeatable and not call.tied)
        finally:
            if retries is not None:
                retries.end()

    def _choose(self, call: PredictCall, spec: PlacementSpec, retries: Retries | None) -> Pod | None:
        """Return the pod to ask next, or None while all that are left have as many requests as they may have.

        Raises:
            NoPodAvailable: Nobody is left.
            CandidateLost: Of a candidate there is none to ask now: its callers wait for nothing that the base has.
        """
        pods, tried = self._pods, retries.tried if retries is not None else ()
        pod = pods.choose(spec, tried=tried)
        if pod is None and retries is not None:
            pod = retries.pod_again(pods.now())
        if pod is not None:
            return pod
        failed = retries.failed if retries is not None else ()
        if call.base is not None and call.info.assignment is not None:
            call.info.assignment.failed = any(attempt.accepted for attempt in failed)
            raise CandidateLost
        if not pods.saturated(spec, tried=tried):
            raise nobody_left(spec, failed, pods.troubles(spec))
        return None

    async def _ask(self, pod: Pod, call: PredictCall, spec: PlacementSpec) -> Reply | FailedAttempt:
        """Return what a pod answers, or a failure that another attempt may follow.

        Raises:
            MarwayError: What the pod said of the request is final.
        """
        info = call.info
        info.pod = pod.name
        info.attempts += 1
        name, version = spec.key
        headers = {**call.headers, READY_ONLY: "1"} if spec.ready_only else call.headers
        began = time.perf_counter()
        try:
            reply = await self._transport.predict(
                pod, name, version, headers=headers, body=call.body, deadline=call.deadline
            )
        except AttemptFailed as exc:
            info.run = None  # that of an attempt before says nothing of this one
            return lost_attempt(self._pods, pod, exc, spec)
        except asyncio.CancelledError:
            # By the deadline, or by a client that went away, which says nothing of the pod; nor does a body that has
            # not come whole by then, unless the pod takes none of it.
            if call.deadline.passed:
                self._pods.timed_out(pod, waited_s=call.body.others_waited_s(began))
            raise
        finally:
            info.pod_s = time.perf_counter() - began
        info.run = reply.run
        if reply.outcome == Outcome.ANSWERED:
            pod.succeeded()
            return reply
        return refused_attempt(self._pods, pod, reply, call, spec)
