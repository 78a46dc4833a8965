"""One attempt of a call: a pod is asked, and what comes of it says something of the pod and of the call."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from marway.errors import MarwayError, Unavailable
from marway.wire.headers import Outcome
from marway.wire.problems import parse_problem
from marway_gateway.placement import PlacementSpec, Pod, PodSet
from marway_gateway.predict.body_hints import hinted
from marway_gateway.predict.call import PredictCall
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import AttemptFailed, PodUnreachable, Reply

__all__ = ["WORKER_DIED", "Attempt", "FailedAttempt"]

WORKER_DIED: Final = "worker_died"
"""Reason of an attempt whose worker died; one more may follow it, on any pod."""
_FINAL: Final = frozenset({Outcome.MODEL_ERROR, Outcome.REFUSED, Outcome.FAILED})
"""What a pod says of the request itself, so that no other need be asked."""
_RETRIABLE: Final = {
    Outcome.NOT_ACCEPTED: ("not_accepted", False),
    Outcome.RUNTIME_DOWN: ("runtime_down", True),
    Outcome.WORKER_DIED: (WORKER_DIED, True),
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


class Attempt:
    """Asks one pod, and tells the set of them what that says of it.

    Args:
        transport: From pod to reply.
        pods: Told of failures and answers.
    """

    def __init__(self, transport: Upstream, pods: PodSet) -> None:
        self._transport = transport
        self._pods = pods

    async def ask(self, pod: Pod, call: PredictCall, spec: PlacementSpec) -> Reply | FailedAttempt:
        """Return the model's answer, or a failure that another attempt may follow.

        Raises:
            MarwayError: What the pod said of the request is final.
        """
        info = call.info
        info.pod = pod.name
        info.attempts += 1
        name, version = spec.key
        began = time.perf_counter()
        try:
            reply = await self._transport.predict(
                pod, name, version, headers=call.headers, body=call.body, deadline=call.deadline
            )
        except AttemptFailed as exc:
            return self._failed(pod, exc, spec)
        except asyncio.CancelledError:
            # By the deadline, or by a client that went away, which says nothing of the pod; nor does a body that has
            # not come whole by then, unless the pod takes none of it.
            if call.deadline.passed:
                self._pods.timed_out(pod, waited_s=call.body.others_waited_s(began))
            raise
        finally:
            info.pod_s = time.perf_counter() - began
        if reply.outcome == Outcome.ANSWERED:
            self._pods.succeeded(pod)
            return reply
        return self._problem(pod, reply, call, spec)

    def _problem(self, pod: Pod, reply: Reply, call: PredictCall, spec: PlacementSpec) -> FailedAttempt:
        """Return the failure that a reply is, if it is no model's answer.

        Raises:
            MarwayError: It is final.
        """
        retriable = _RETRIABLE.get(reply.outcome or "")
        if retriable is None and reply.outcome not in _FINAL:
            # Something between us and the sidecar answered, or what listens there is none.
            why = f"answered with status {reply.status}, but not as a sidecar does"
            return self._failed(pod, AttemptFailed(why, reason="bad_answer"), spec)
        if reply.outcome == Outcome.RUNTIME_DOWN:
            self._pods.eject(pod, "its model server is down")
        else:
            self._pods.succeeded(pod)
        error = parse_problem(reply.data or b"", status=reply.status, retry_after_s=reply.retry_after_s)
        if retriable is None:
            raise hinted(error, call)
        reason, accepted = retriable
        return FailedAttempt(pod, reason, _named(pod, error, reply), accepted)

    def _failed(self, pod: Pod, failure: AttemptFailed, spec: PlacementSpec) -> FailedAttempt:
        accepted = not isinstance(failure, PodUnreachable)
        if not accepted:
            self._pods.unreachable(pod, failure.why)
        elif failure.counted:
            self._pods.lost(pod, failure.why)
        name, version = spec.key
        error = Unavailable(f"pod {pod.name} {failure.why}", model=name, version=version)
        return FailedAttempt(pod, failure.reason, error, accepted)


def _named(pod: Pod, error: MarwayError, reply: Reply) -> Unavailable:
    """Return what a pod said as an error of the same kind that names the pod."""
    kind = type(error) if isinstance(error, Unavailable) else Unavailable
    return kind(
        f"pod {pod.name}: {error.message}",
        model=error.model,
        version=error.version,
        retry_after_s=reply.retry_after_s,
    )
