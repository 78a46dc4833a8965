"""A prediction: admitted → version resolved → body read → rows → pool → answer. It is the one way for all of them,
whatever they came over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from marway.deadline import Deadline
from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    MarwayError,
    Overloaded,
    Unavailable,
    VersionNotFound,
)
from marway.resolve import Resolved, Resolver
from marway.wire.headers import JSON_NONFINITE, NOTHING, READY_ONLY, REQUEST_TIMEOUT_MS, STREAM
from marway.wire.request import timeout_of
from marway_http.channel import Channel, ClientGone, ServerStopping
from marway_http.http1.request import Request
from marway_http.tracebacks import forget_frames
from marway_sidecar.api.answers import answer_of, finite_of
from marway_sidecar.api.bodies import answer_unread, read_body, stream_answer
from marway_sidecar.api.call import Call, check_body, holds_rows, prediction_at, row_of
from marway_sidecar.api.envelopes import INLINE_BYTES, ask_rows, envelope_of, rows_of
from marway_sidecar.api.failures import log_failure, outcome_of, problem_answer
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.memory.body_budget import BodyBudget
from marway_sidecar.scheduler import Job
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["Predictor"]

logger = logging.getLogger(__name__)

_GONE: Final = ClientGone()


@dataclass(eq=False)
class Predictor:
    """Answers predictions.

    Attributes:
        threads: Where forms, envelopes and tensors are read that would hold the event loop up.
        refused: Told the model of each request for a version that is not there.
    """

    settings: SidecarSettings
    resolver: Resolver
    pool: ModelPool
    bodies: BodyBudget
    drain: Drain
    threads: Threads
    refused: Callable[[str], None]
    _running: set[Channel] = field(default_factory=set)

    def give_up(self) -> None:
        """Refuse what is not answered yet: the time to drain is over."""
        for channel in list(self._running):
            channel.interrupt(ServerStopping())

    def answer_framed(
        self, path: str, headers: Mapping[str, str], client: str, channel: Channel
    ) -> Coroutine[Any, Any, None] | None:
        """Return what answers a prediction that came over frames; None for what is none."""
        named = prediction_at(path)
        return None if named is None else self.answer(Call(headers, named, client, channel))

    async def answer(self, call: Call) -> None:
        """Answer one request; every failure becomes a problem document with its outcome.

        What a frame cannot carry is left unanswered. Whoever leaves interrupts it: work that waits is dropped, what is
        in a worker goes on, and holds its slot.
        """
        channel, drain = call.channel, self.drain
        self._running.add(channel)
        if channel.received:
            channel.when_gone(partial(channel.interrupt, _GONE))
        try:
            drain.asked_at = time.monotonic()
            if drain.draining:
                drain.check()
            drain.requests_in_flight += 1
            try:
                await self._predict(call)
            finally:
                drain.requests_in_flight -= 1
        except ClientGone as exc:
            forget_frames(exc)  # nobody reads an answer
        except MarwayError as exc:
            if isinstance(exc, VersionNotFound) and exc.model is not None:
                self.refused(exc.model)
            forget_frames(exc)
            await self._refuse(call, exc)
        except asyncio.CancelledError as exc:
            forget_frames(exc)
            if isinstance(channel.reason, MarwayError):
                await self._refuse(call, channel.reason)
            elif not isinstance(channel.reason, ClientGone):
                message = "this pod stopped before it had the answer: send the request again"
                await self._refuse(call, Draining(message))
        except Exception as exc:
            request_id = call.ids.request_id
            logger.exception("request %s failed unexpectedly", request_id, extra={"fields": {"request_id": request_id}})
            forget_frames(exc)
            message = f"something went wrong in the sidecar; its log has it under {request_id}"
            await self._refuse(call, MarwayError(message))
        finally:
            channel.when_gone(None)
            self._running.discard(channel)

    async def _predict(self, call: Call) -> None:
        settings, channel = self.settings, call.channel
        asked = call.headers.get(REQUEST_TIMEOUT_MS)
        timeout_s = timeout_of(asked, default_s=settings.default_timeout_s, max_s=settings.max_timeout_s)
        deadline = Deadline.after(timeout_s)
        check_body(call, limit=settings.max_body_bytes)
        resolved = self.resolver.lookup(*call.named) or await self.resolver.resolve(*call.named)
        if call.headers.get(READY_ONLY) == "1":
            self._check_ready(resolved)
        many = holds_rows(call.headers.get("content-type"))
        streams = (resolved.serving.streaming or call.headers.get(STREAM) == "1") and not many
        if streams and not isinstance(channel, Request):
            return
        body, held = call.body, None
        if body is None:
            body, held = await read_body(call, limit=settings.max_body_bytes, budget=self.bodies, deadline=deadline)
            channel.when_gone(partial(channel.interrupt, _GONE))
        try:
            if not body and call.headers.get(NOTHING) != "1":
                raise InvalidRequest("the request has no body: send the model's input, such as curl -d 'some text' URL")
            small = len(body) <= INLINE_BYTES
            given = call.headers, body, call.ids
            if many:
                rows = rows_of(*given) if small else await self.threads.run(rows_of, *given)
                del given, body  # its rows have it
                answers = await ask_rows(call, self.pool, resolved, rows, deadline, held)
                finite = finite_of(answers)
                answer = await envelope_of(answers, call, resolved, self.threads)
            else:
                row = row_of(*given) if small else await self.threads.run(row_of, *given)
                if resolved.serving.nonfinite != "error":  # which is what a worker does unless told otherwise
                    row = replace(row, headers={**row.headers, JSON_NONFINITE: resolved.serving.nonfinite})
                del given, body
                if isinstance(channel, Request) and streams:
                    await stream_answer(call, channel, self.pool, resolved, row, deadline, held, drain=self.drain)
                    return
                job = Job([row], deadline, group=call.group, body=held, priority=call.priority)
                actor = self.pool.wanted.get(resolved.record.id)
                if actor is not None and actor.entry.serving is resolved.serving:
                    scheduler = actor.entry.scheduler
                else:
                    scheduler = self.pool.scheduler(resolved.record, resolved.serving)
                scheduler.submit(job)
                try:
                    answers = await job.future
                finally:
                    scheduler.leave(job)
                    call.take_in(job)
                (answer,) = answers
                finite = finite_of(answers, nulls=resolved.serving.nonfinite == "null")
            sent = answer_of(answer, resolved, call.ids, call.run(finite))
            await channel.answer(*sent, close=self.drain.draining)
        finally:
            if held is not None:
                held.release()

    def _check_ready(self, resolved: Resolved) -> None:
        """Refuse a request that would wait for a load, before a byte of it is read.

        Raises:
            Unavailable: The version is not ready here; another pod, or another version, may answer.
        """
        record = resolved.record
        actor = self.pool.wanted.get(record.id)
        if actor is None or actor.entry.state != "ready":
            raise Unavailable(
                f"{record.name} {record.version} is not ready here, and the request is not to wait for it",
                model=record.name,
                version=record.version,
            )

    async def _refuse(self, call: Call, error: MarwayError) -> None:
        """Answer with the problem; an answer that has begun is cut off, so that its client sees that it is half."""
        outcome = outcome_of(error, accepted=call.accepted)
        resolved = self.resolver.lookup(*call.named)
        log_failure(call, error, outcome=outcome, serving=None if resolved is None else resolved.serving)
        if call.channel.started:
            return
        channel, draining = call.channel, self.drain.draining
        late = isinstance(error, (DeadlineExceeded, Overloaded)) and not channel.received
        close = draining or late or isinstance(error, BodyTooLarge)
        run = call.run() if call.accepted else None
        sent = problem_answer(error, request_id=call.ids.request_id, outcome=outcome, run=run)
        if close and isinstance(channel, Request) and not channel.received:
            await answer_unread(channel, *sent)
        else:
            await channel.answer(*sent, close=close)
