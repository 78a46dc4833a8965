"""Copies of a label's requests: drawn when the base has answered, sent when there is room, compared and counted."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import getrandbits, random
from typing import Protocol

from marway.deadline import Deadline
from marway.errors import ModelError
from marway.resolve.resolved import Resolved, alike
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.open_inference_json import media_type_of
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.placement.sequence_home import KeptSequence
from marway_gateway.traffic.shadow.comparing import AnswerBody
from marway_gateway.traffic.shadow.judging import Copied, CopyJudge
from marway_gateway.traffic.shadow.sending import CopySender, Dropped
from marway_gateway.transport.reply import Reply
from marway_http.tensors.requests import Rendering

__all__ = ["Limits", "ShadowCopies"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much copies may take of a gateway process.

    Attributes:
        in_flight: Copies that are on their way at once, of all models.
        waiting: Copies that wait for that; what is more is dropped.
        waiting_bytes: Bytes of the bodies of these.
        body_bytes: The largest request or answer that is copied or compared.
        within_s: How long a copy may take, in seconds, where its caller did not want the answer sooner.
    """

    in_flight: int = 16
    waiting: int = 64
    waiting_bytes: int = 16 * 1024 * 1024
    body_bytes: int = 1024 * 1024
    within_s: float = 30.0


class Call(Protocol):
    """A predict call, as far as copies are concerned; see `marway_gateway.predict.call.PredictCall`."""

    headers: Mapping[str, str]
    deadline: Deadline
    info: RequestInfo
    body: RequestBody
    resolved: Resolved | None
    divides: bool
    rendering: Rendering | None
    sequence: str | KeptSequence | None


@dataclass(slots=True)
class _Copy:
    """A copy that is to be sent."""

    version: Resolved
    headers: Mapping[str, str]
    body: bytes
    within_s: float
    copied: Copied


class ShadowCopies:
    """Has copies made, so that nobody waits for one.

    Args:
        sender: Sends them.
        judge: Compares and counts what comes of them.
        telemetry: Counts them by outcome.
        busy: Whether requests wait in this gateway: no copy is sent then.
        limits: How much they may take.
    """

    def __init__(
        self,
        sender: CopySender,
        judge: CopyJudge,
        telemetry: Telemetry,
        *,
        busy: Callable[[], bool],
        limits: Limits | None = None,
    ) -> None:
        self._sender = sender
        self._judge = judge
        self._outcomes = telemetry.metrics.shadow_requests
        self._busy = busy
        self._limits = limits or Limits()
        self._waiting: deque[_Copy] = deque()
        self._waiting_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._due = False

    def answered(self, call: Call, reply: Reply, *, shaped: bool) -> None:
        """Take in that the base answered a request of a label that is divided.

        Args:
            call: The request's.
            reply: The base's answer.
            shaped: Whether the body was made for the base, so that a version that takes others cannot be given it.
        """
        base = call.resolved
        if base is None or base.divided is None or not base.divided.shadow or not _counts(call):
            return
        data = reply.data
        if data is not None and len(data) <= self._limits.body_bytes:
            answer = AnswerBody(reply.status, data, media_type_of(reply.header_block.text))
        else:
            answer = None
        self._draw(call, base, reply.status, answer, shaped=shaped)

    def failed(self, call: Call, error: ModelError, *, shaped: bool) -> None:
        """Take in that the base's code failed on a request; arguments as `answered` has them."""
        base = call.resolved
        if base is not None and base.divided is not None and base.divided.shadow and _counts(call):
            self._draw(call, base, error.status, None, shaped=shaped)

    async def aclose(self) -> None:
        """Give up all copies."""
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _draw(self, call: Call, base: Resolved, status: int, answer: AnswerBody | None, *, shaped: bool) -> None:
        assert base.divided is not None
        limits, body = self._limits, call.body.whole
        for version, percent in base.divided.shadow:
            if percent < 100 and random() * 100 >= percent:
                continue
            copied = Copied(call.info, base, version, base.divided.traffic, status, answer, call.rendering)
            if body is None or len(body) > limits.body_bytes:
                self._drop(copied, "too_large")
            elif shaped and not alike(base, version):
                self._drop(copied, "other_form")
            elif len(self._waiting) >= limits.waiting or self._waiting_bytes + len(body) > limits.waiting_bytes:
                self._drop(copied, "full")
            else:
                within_s = min(call.deadline.timeout_s or limits.within_s, limits.within_s)
                self._waiting.append(_Copy(version, call.headers, body, within_s, copied))
                self._waiting_bytes += len(body)
                if not self._due:
                    self._due = True
                    asyncio.get_running_loop().call_soon(self._start)  # the answer goes out first

    def _start(self) -> None:
        self._due = False
        while self._waiting and len(self._tasks) < self._limits.in_flight:
            copy = self._waiting.popleft()
            self._waiting_bytes -= len(copy.body)
            task = asyncio.create_task(self._make(copy), name="shadow")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            if (error := task.exception()) is not None:
                _log.error("a copy of a request was lost to a mistake here", exc_info=error)
            self._start()

    async def _make(self, copy: _Copy) -> None:
        if self._busy():
            self._drop(copy.copied, "busy")
            return
        came = await self._sender.send(copy.version, copy.headers, copy.body, within_s=copy.within_s)
        if isinstance(came, Dropped):
            self._drop(copy.copied, came.reason)
            return
        self._outcomes.labels("ok" if came.reply is not None and came.status < 400 else "model_error").inc()
        await self._judge.judge(copy.copied, came, sent=copy.body, row=getrandbits(30))

    def _drop(self, copied: Copied, reason: str) -> None:
        self._outcomes.labels(reason).inc()
        self._judge.dropped(copied, reason)


def _counts(call: Call) -> bool:
    """Return whether a request of a label that the base answered says something of another version that answers it.

    Not one that has nothing to do with predictions, or is of a sequence, whose state is the base's; that a cache
    answered; or that was the candidate's and came to the base because that was lost.
    """
    info = call.info
    if info.prediction_id is None or not call.divides or call.sequence is not None or info.cache == "hit":
        return False
    return info.assignment is None or not info.assignment.candidate
