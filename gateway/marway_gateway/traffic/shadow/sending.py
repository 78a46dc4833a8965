"""One copy on its way to a pod and back: asked once, in a moment in which nobody else is held up by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, ModelError, NoRoomToSpare
from marway.graphs import GRAPH_BACKEND
from marway.resolve.resolved import Resolved
from marway.wire.headers import PRIORITY, Outcome
from marway.wire.problems import parse_problem
from marway_gateway.http.body import RequestBody
from marway_gateway.placement import PodSet, placement_spec
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import AttemptFailed
from marway_gateway.transport.reply import Reply

__all__ = ["Came", "CopySender", "Dropped", "SendsCopies"]

_GRACE_S: Final = 1.0
"""How much later than the pod this gives a copy up: the pod says whether the model was at work."""
_STREAM_BYTES_MAX: Final = 16 * 1024 * 1024


class Dropped(NamedTuple):
    """A copy that tells nothing of the version, and why, in one word for metrics."""

    reason: str


@dataclass(frozen=True, slots=True)
class Came:
    """What became of a copy that the version was given.

    Attributes:
        pod: Who was asked; None of a graph, which no pod has.
        pod_s: How long that took, in seconds.
        status: Its answer's, or what stands for its failure.
        reply: Its answer; None where the model failed.
        body: The whole of it; None where it came in pieces, or is larger than a gateway holds in memory.
        run: How the model server ran it, as the pod said it.
        error: The model's failure, where it gave no answer.
    """

    pod: str | None
    pod_s: float
    status: int
    reply: Reply | None
    body: bytes | None
    run: bytes | None
    error: ModelError | DeadlineExceeded | None = None


class SendsCopies(Protocol):
    """What sends copies."""

    async def send(
        self, version: Resolved, headers: Mapping[str, str], body: bytes, *, within_s: float
    ) -> Came | Dropped:
        """Return what a version made of a request, or why it was not asked or is not known."""


class _Uncounted:
    """A pod on which what is asked does not count as in flight, so that nobody else is sent elsewhere for it."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url

    def begin(self, key: tuple[str, str], /) -> None:
        """Count nothing."""

    def end(self, key: tuple[str, str], /) -> None:
        """Count nothing."""


class CopySender:
    """Sends copies.

    Args:
        pods: Say who has a version ready; they are told nothing of how copies end.
        transport: Asks pods.
        algorithm_pools: Pools of versions that name none, by algorithm.
        graphs: Sends those to graphs.
    """

    def __init__(
        self, pods: PodSet, transport: Upstream, algorithm_pools: Mapping[str, str], graphs: SendsCopies
    ) -> None:
        self._pods = pods
        self._transport = transport
        self._algorithm_pools = algorithm_pools
        self._graphs = graphs

    async def send(
        self, version: Resolved, headers: Mapping[str, str], body: bytes, *, within_s: float
    ) -> Came | Dropped:
        """Return what a version made of a request, or why it was not asked or is not known."""
        if version.record.backend == GRAPH_BACKEND:
            return await self._graphs.send(version, headers, body, within_s=within_s)
        spec = placement_spec(version.record, version.serving, self._algorithm_pools)._replace(ready_only=True)
        pod = self._pods.choose(spec)
        if pod is None:
            return Dropped("not_ready")
        name, number = spec.key
        deadline, began = Deadline.after(within_s), time.perf_counter()
        try:
            async with asyncio.timeout(within_s + _GRACE_S):
                reply = await self._transport.predict(
                    _Uncounted(pod.url),
                    name,
                    number,
                    headers={**headers, PRIORITY: "shadow"},
                    body=RequestBody.opened(body, max_bytes=len(body)),
                    deadline=deadline,
                )
                if reply.outcome != Outcome.ANSWERED:
                    return _not_answered(pod.name, time.perf_counter() - began, reply)
                if reply.data is None:
                    await _read_to_its_end(reply)
        except AttemptFailed:
            return Dropped("lost")
        except TimeoutError:
            return Dropped("late")
        return Came(pod.name, time.perf_counter() - began, reply.status, reply, reply.data, reply.run)


async def _read_to_its_end(reply: Reply) -> None:
    """Have an answer in pieces come whole, and forget it; one without an end is given up."""
    size = 0
    try:
        async for piece in reply.chunks():
            size += len(piece)
            if size > _STREAM_BYTES_MAX:
                return
    finally:
        reply.close()


def _not_answered(pod: str, pod_s: float, reply: Reply) -> Came | Dropped:
    error = parse_problem(reply.data or b"", status=reply.status, retry_after_s=reply.retry_after_s)
    match reply.outcome:
        case Outcome.MODEL_ERROR | Outcome.WORKER_DIED:
            failure = error if isinstance(error, ModelError) else ModelError(error.message)
            return Came(pod, pod_s, failure.status, None, None, reply.run, failure)
        case Outcome.FAILED if isinstance(error, DeadlineExceeded) and reply.run is not None:
            return Came(pod, pod_s, 504, None, None, reply.run, error)  # the model had it, and did not come to an end
        case Outcome.NOT_ACCEPTED:
            return Dropped("no_room" if isinstance(error, NoRoomToSpare) else "not_ready")
        case Outcome.REFUSED:
            return Dropped("refused")
    return Dropped("lost")
