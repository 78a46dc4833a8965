"""One attempt of a call: a pod is asked, and what comes of it says something of the pod and of the call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from marway.deadline import Deadline
from marway.errors import MarwayError, Unavailable
from marway.wire.headers import Outcome
from marway.wire.problems import parse_problem
from marway_gateway.placement import Demand, Pod, PodSet
from marway_gateway.predict.body_hints import hinted
from marway_gateway.predict.call import PredictCall
from marway_gateway.predict.retry import WORKER_DIED, FailedAttempt
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import AttemptFailed, PodUnreachable, Reply
from marway_http.eager import EagerTask

__all__ = ["Asker", "Asking", "Waiter"]

_FINAL = frozenset({Outcome.MODEL_ERROR, Outcome.REFUSED, Outcome.FAILED})


class Waiter(Protocol):
    """Who is given a reply, or why there is none: a future, or what acts at once."""

    def done(self) -> bool:
        """Whether it wants nothing any more."""

    def set_result(self, reply: Reply, /) -> None:
        """Take the reply."""

    def set_exception(self, error: Exception, /) -> None:
        """Take why there is none."""


class Sent:
    """A request that was sent without a task."""

    def __init__(self, asking: Coroutine[Any, Any, Reply], waiter: Waiter) -> None:
        self._waiter: Waiter | None = waiter
        self._running = EagerTask(self._run(asking))

    async def _run(self, asking: Coroutine[Any, Any, Reply]) -> None:
        try:
            reply = await asking
        except Exception as exc:
            waiter, self._waiter = self._waiter, None
            if waiter is not None and not waiter.done():
                waiter.set_exception(exc)
            return
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            reply.close()
        else:
            waiter.set_result(reply)

    async def reply(self, waiter: asyncio.Future[Reply]) -> Reply:
        """Return the reply, as ``waiter`` has it; who is cancelled wants none."""
        try:
            return await waiter
        except asyncio.CancelledError as exc:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().close()
            else:
                self._waiter = None
                self._running.interrupt(RuntimeError(str(exc)))
            raise


@dataclass(slots=True)
class Asking:
    """A pod that is being asked without a task.

    Attributes:
        call: For whom.
        demand: What its version asks for.
        pod: Who is asked.
        sent: What was sent there.
        began: When, by `time.perf_counter`.
    """

    call: PredictCall
    demand: Demand
    pod: Pod
    sent: Sent
    began: float


class Asker:
    """Asks pods, and tells the set of them what that says of them.

    `ask` does that as a coroutine. `begin` and `finish` do the same without one where nothing but the pod's answer
    needs waiting for, and `resume` goes on as a coroutine where something does after all.

    Args:
        upstream: From pod to answer.
        pods: Told of failures and answers.
    """

    def __init__(self, upstream: Upstream, pods: PodSet) -> None:
        self._upstream = upstream
        self._pods = pods

    async def ask(self, pod: Pod, call: PredictCall, demand: Demand) -> Reply | FailedAttempt:
        """Ask one pod; return the model's answer or a failure.

        Raises:
            MarwayError: What the pod said of the request is final.
        """
        began = _asking(pod, call)
        asking = self._upstream.predict(
            pod, *demand.key, headers=call.headers, body=call.body, deadline=Deadline(call.deadline)
        )
        return await self._judged(asking, pod, call, demand, began)

    def begin(self, pod: Pod, call: PredictCall, demand: Demand, waiter: Waiter) -> Asking | None:
        """Send a call to a pod, if that needs no waiting; None when it does.

        Args:
            pod: Whom to ask.
            call: The call; its body is in memory.
            demand: What its version asks for.
            waiter: Given the pod's response, for `finish`, or the failure, for `resume`.
        """
        began = _asking(pod, call)
        reply = self._upstream.predict(
            pod, *demand.key, headers=call.headers, body=call.body, deadline=Deadline(call.deadline)
        )
        return Asking(call, demand, pod, Sent(reply, waiter), began)

    def finish(self, asking: Asking, reply: Reply) -> Reply | None:
        """Return the answer, if it is the model's and whole; when None, `resume` must go on."""
        if reply.data is None or reply.outcome != Outcome.ANSWERED:
            return None
        asking.call.info.pod_s = time.perf_counter() - asking.began
        self._pods.succeeded(asking.pod)
        return reply

    async def resume(self, asking: Asking, waiter: asyncio.Future[Reply]) -> Reply | FailedAttempt:
        """Do as `ask` from where `begin` got to.

        Args:
            asking: What was begun.
            waiter: Has, or is going to have, what the waiter of `begin` was given.
        """
        return await self._judged(asking.sent.reply(waiter), asking.pod, asking.call, asking.demand, asking.began)

    async def _judged(
        self, asking: Awaitable[Reply], pod: Pod, call: PredictCall, demand: Demand, began: float
    ) -> Reply | FailedAttempt:
        try:
            reply = await asking
        except AttemptFailed as exc:
            return self._failed(pod, exc, demand)
        except asyncio.CancelledError:
            # By the deadline, or by a client that went away, which says nothing of the pod; nor does a body that has
            # not come whole by then, unless the pod takes none of it.
            if time.monotonic() >= call.deadline:
                self._pods.timed_out(pod, waited_s=call.body.others_waited_s(began))
            raise
        finally:
            call.info.pod_s = time.perf_counter() - began
        if reply.outcome == Outcome.ANSWERED:
            self._pods.succeeded(pod)
            return reply
        error = parse_problem(reply.data or b"", status=reply.status, retry_after_s=reply.retry_after_s)
        if reply.outcome in _FINAL:
            self._pods.succeeded(pod)
            raise hinted(error, call)
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
            demand,
        )

    def _failed(self, pod: Pod, failure: AttemptFailed, demand: Demand) -> FailedAttempt:
        accepted = not isinstance(failure, PodUnreachable)
        if accepted:
            if failure.counted:
                self._pods.lost(pod, failure.why)
        else:
            self._pods.unreachable(pod, failure.why)
        name, version = demand.key
        error = Unavailable(f"pod {pod.name} {failure.why}", model=name, version=version)
        return FailedAttempt(pod, failure.reason, error, accepted)


def _asking(pod: Pod, call: PredictCall) -> float:
    """Note that a pod is asked now; return when that is."""
    call.info.pod = pod.name
    call.info.attempts += 1
    return time.perf_counter()


def _said(pod: Pod, error: MarwayError, reply: Reply) -> Unavailable:
    """Return what a pod said as an error of the same kind that names the pod."""
    kind = type(error) if isinstance(error, Unavailable) else Unavailable
    return kind(
        f"pod {pod.name}: {error.message}",
        model=error.model,
        version=error.version,
        retry_after_s=reply.retry_after_s,
    )
