"""One prediction that a caller asked for, and the model's own answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, Unavailable
from marway.resolve.resolved import Resolved
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.graph_report import Step
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.placement.sequence_home import KeptSequence
from marway_gateway.transport.base import AttemptFailed
from marway_gateway.transport.reply import Reply
from marway_http.eager import in_task
from marway_http.tensors.requests import Rendering

__all__ = ["Answer", "CandidateLost", "GraphRunner", "PredictCall", "Predicts", "shaped", "too_late"]

T = TypeVar("T")


class CandidateLost(Exception):
    """The version that a call's body was made for is not asked after all; the call is another's, which needs its own.

    Of a candidate it is the base's then, of a version without room its fallback's.
    """


@dataclass(slots=True)
class PredictCall:
    """One prediction that a caller asked for.

    Attributes:
        name: Model name or id.
        selector: Version or label, or None.
        headers: What goes to the pod beside the deadline.
        deadline: When the caller gives up.
        info: Filled in on the way.
        body: What the model is given.
        fresh: Whether the caller wants an answer that is made now, and not a cached one.
        resolved: What name and selector stand for, once that is known; the candidate, where it is to answer.
        base: Who answers where the candidate cannot; None where the call is not the candidate's.
        divides: Whether the candidate may answer.
        asked: Headers and body as they were when the call was resolved, where another version may be asked after all.
        rendering: How the answers to its rows become the protocol's, where the body that goes to the pod is of rows.
        sequence: Which sequence it is of, for a server that keeps a state from one request to the next.
        tied: Whether it may be asked of one pod alone, once, because a state there depends on it.
        step: Where in a graph it is made; None where it is a caller's own.
    """

    name: str
    selector: str | None
    headers: Mapping[str, str]
    deadline: Deadline
    info: RequestInfo
    body: RequestBody
    fresh: bool = False
    resolved: Resolved | None = None
    base: Resolved | None = None
    divides: bool = True
    asked: tuple[Mapping[str, str], RequestBody] | None = None
    rendering: Rendering | None = None
    sequence: str | KeptSequence | None = None
    tied: bool = False
    step: Step | None = None

    def back_to_base(self) -> Resolved:
        """Make a candidate's call the base's; return the base."""
        base, info = self.base, self.info
        assert base is not None
        assert info.assignment is not None
        self.base, self.divides = None, False
        info.role = "base"
        info.assignment.counted = info.assignment.failed
        self.goes_to(base)
        return base

    def goes_to(self, other: Resolved) -> None:
        """Make the call another version's; nothing more is kept of it than that one's settings allow."""
        info, serving = self.info, other.serving
        self.resolved, info.run = other, None
        info.model, info.version, info.model_id = other.record.name, other.record.version, other.record.id
        info.serving = serving
        if serving.observe == "off":
            info.observe, info.input = "off", None
        elif serving.observe == "metadata" and info.observe == "bodies":
            info.observe, info.input = "metadata", None

    async def whole_body(self) -> bytes:
        """Return all of the body, received first where it has not come, and note its size.

        Raises:
            MarwayError: As `RequestBody.open`.
        """
        try:
            if not self.body.ended:
                await self.body.open()
        finally:
            self.info.request_bytes = self.body.size
        whole = self.body.whole or b""
        if self.info.serving is None or self.info.observe == "bodies":
            self.info.input = whole  # what goes to the pod may be made of it
        return whole


@dataclass(slots=True)
class Answer:
    """A model's own answer, passed on as it is.

    Attributes:
        reply: Its status, its headers, and its body where that is whole.
        call: The call that it answers.
    """

    reply: Reply
    call: PredictCall

    @property
    def in_pieces(self) -> bool:
        """Whether the handler sends it in pieces, and not only a body too large to be held in memory."""
        return self.reply.data is None and self.reply.content_length is None

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield a streaming body as it comes, cut anywhere. Needs a task of its own, as `pieces` does.

        Raises:
            DeadlineExceeded: The deadline passed before its end.
            Unavailable: The pod was lost before its end.
        """
        return self._in_time(self.reply.chunks())

    def pieces(self, *, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield a streaming body in the pieces in which the handler sent it, each of ``max_bytes`` at most.

        Raises:
            DeadlineExceeded: The deadline passed before its end.
            Unavailable: The pod was lost before its end, or sent a larger piece.
        """
        return self._in_time(self.reply.pieces(max_bytes=max_bytes))

    async def whole(self, *, max_bytes: int, too_large: str) -> bytes:
        """Return all of the body, and let go of the pod.

        Raises:
            MarwayError: It is larger than ``max_bytes``, in the words of ``too_large``.
            DeadlineExceeded: The deadline passed before its end.
            Unavailable: The pod was lost before its end.
        """
        if self.reply.data is not None:
            return self.reply.data
        await in_task()
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in self.chunks():
                size += len(piece)
                if size > max_bytes:
                    raise MarwayError(too_large)
                pieces.append(piece)
        finally:
            self.close()
        return b"".join(pieces)

    async def _in_time(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self.call.deadline.left_s()):
                    piece = await anext(pieces, b"")
            except TimeoutError as exc:
                raise too_late(self.call) from exc
            except AttemptFailed as exc:
                info = self.call.info
                raise Unavailable(
                    f"the answer broke off: pod {info.pod} {exc.why}; the model's log may say why",
                    model=info.model,
                    version=info.version,
                ) from exc
            if not piece:
                return
            yield piece

    def close(self) -> None:
        """Let go of the pod; what was not read is thrown away."""
        self.reply.close()


class Predicts(Protocol):
    """What makes predict calls: `marway_gateway.predict.pipeline.Predictor`."""

    async def resolve(self, call: PredictCall) -> Resolved:
        """Return what a call's name and selector stand for."""

    async def predict(self, call: PredictCall) -> Answer:
        """Return a model's answer."""


class GraphRunner(Protocol):
    """What answers calls of graphs: `marway_gateway.graph.graphs.Graphs`."""

    async def answer(self, predictor: Predicts, call: PredictCall, resolved: Resolved) -> Reply:
        """Return a graph's answer; its nodes' models are asked through ``predictor``."""


def too_late(call: PredictCall, where: str | None = None) -> DeadlineExceeded:
    """Return the error of a call whose deadline passed; without ``where`` its pod says how far it was."""
    if where is None:
        pod = call.info.pod
        where = f"pod {pod} had not answered" if pod is not None else "it had not reached a pod"
    return DeadlineExceeded(
        f"the request's deadline of {call.deadline.timeout_s:g} s passed: {where}",
        model=call.info.model,
        version=call.info.version,
    )


async def shaped(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what ``ask`` does, which resolves a call, makes its body for that version and has it predicted.

    It does so again where that version can no longer be asked and another needs another body, or another reading of the
    answer: for the base of a candidate, and for a fallback, each once at most.
    """
    while True:
        with suppress(CandidateLost):
            return await ask()
