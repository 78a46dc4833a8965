"""The predict routes of a pod: reference → version → loaded → row → answer, whole or in pieces as they come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from starlette.types import Receive, Scope, Send

from marway.deadline import Deadline
from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    MarwayError,
    Overloaded,
    VersionNotFound,
    forget_frames,
)
from marway.resolve import Resolved, Resolver
from marway.wire import headers
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Row, encode_answers
from marway.wire.headers import Outcome
from marway.wire.request import timeout_of
from marway_sidecar.api.bodies import check_coding, check_length, read_body
from marway_sidecar.api.body_budget import BodyBudget, HeldBytes
from marway_sidecar.api.call import Call, HttpCall, log_failure, outcome_of
from marway_sidecar.api.channel import ClientGone
from marway_sidecar.api.http import problem_response
from marway_sidecar.api.many import ManyRows, holds_rows, rows_of
from marway_sidecar.api.replies import model_error, reply_of
from marway_sidecar.api.rows import INLINE_BYTES, raw_row, row_of
from marway_sidecar.api.streams import Streams
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.lifecycle.draining import Drain
from marway_sidecar.scheduler import CallerLeft, Job
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["Predictor"]

logger = logging.getLogger(__name__)


class Predictor:
    """ASGI app of the predict routes.

    Args:
        settings: Limits and time-outs.
        resolver: Finds the version.
        pool: Has it loaded.
        bodies: Sets memory aside for large ones.
        drain: Says whether requests are taken.
        threads: Where forms, envelopes and tensors are read that would hold the event loop up.
        refused: Told the model of each request for a version that is not there.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        resolver: Resolver,
        pool: ModelPool,
        bodies: BodyBudget,
        drain: Drain,
        threads: Threads,
        *,
        refused: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._pool = pool
        self._bodies = bodies
        self._drain = drain
        self._threads = threads
        self._refused = refused
        self._streams = Streams(pool, drain)
        self._at_work: set[Job] = set()
        self._ending: set[asyncio.Task[None]] = set()

    def serve_now(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> bool:
        """Begin to answer a request whose body is here, without a task, where all goes as it mostly does; return
        whether it was begun. What is known to fail, or to take more than a worker's time, is left to `__call__`.
        """
        call = HttpCall(scope, receive, send)
        call.channel.received = True
        return self.begin(call, body)

    def begin(self, call: Call, body: bytes) -> bool:
        """Begin to answer a call whose body is here; return whether it was begun."""
        named = call.named
        resolved = self._resolver.lookup(named["model"], named.get("selector"))
        if resolved is None or resolved.serving.streaming or not 0 < len(body) <= self._settings.max_body_bytes:
            return False
        if holds_rows(call.headers.get("content-type")) or "content-encoding" in call.headers:
            return False
        row = raw_row(call.headers, body, request_id=call.ids.request_id)
        if row is None:
            return False
        try:
            self._drain.admit()
        except MarwayError:
            return False
        try:
            job = Job([_as_served(row, resolved)], self._deadline_of(call), group=call.group)
            end = self._pool.submit(resolved.record, resolved.serving, job)
        except MarwayError:
            self._drain.leave()
            return False  # nothing was begun, and `__call__` runs into the same
        self._at_work.add(job)
        call.channel.when_gone(job.abandon)
        job.future.add_done_callback(partial(self._done, call, resolved, job, end))
        return True

    def give_up(self) -> None:
        """Refuse what was begun without a task: time is over. The server cancels what has one."""
        for job in self._at_work:
            if not job.future.done():
                job.future.set_exception(_stopped())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every failure becomes a problem document with its outcome."""
        call = HttpCall(scope, receive, send)
        await self._guarded(call, self._admitted(call))

    async def _admitted(self, call: HttpCall) -> None:
        self._drain.admit()
        try:
            await self._answer(call)
        finally:
            self._drain.leave()

    async def _guarded(self, call: Call, answering: Awaitable[None]) -> None:
        try:
            await answering
        except (ClientGone, CallerLeft) as exc:
            forget_frames(exc)  # nobody reads an answer
        except MarwayError as exc:
            if isinstance(exc, VersionNotFound) and exc.model is not None:
                self._refused(exc.model)
            forget_frames(exc)
            await self._refuse(call, exc)
        except asyncio.CancelledError:
            # Only the server cancels requests, when the time to drain is over.
            if call.channel.started:
                raise
            _uncancel()
            await self._refuse(call, _stopped())
        except Exception as exc:
            fields = {"request_id": call.ids.request_id}
            logger.exception("request %s failed unexpectedly", call.ids.request_id, extra={"fields": fields})
            forget_frames(exc)
            await self._refuse(
                call, MarwayError(f"something went wrong in the sidecar; its log has it under {call.ids.request_id}")
            )

    async def _answer(self, call: HttpCall) -> None:
        settings = self._settings
        deadline = self._deadline_of(call)
        length = call.headers.get("content-length")
        size = int(length) if length is not None else None
        check_length(size, settings.max_body_bytes)
        check_coding(call.headers.get("content-encoding"))
        named = call.named
        name, selector = named["model"], named.get("selector")
        resolved = self._resolver.lookup(name, selector) or await self._resolver.resolve(name, selector)
        body, held = await read_body(
            call.channel,
            size,
            limit=settings.max_body_bytes,
            budget=self._bodies,
            deadline=deadline,
            may_be_empty=call.headers.get(headers.NOTHING) == "1",
        )
        request_id = call.ids.request_id
        try:
            if holds_rows(call.headers.get("content-type")):
                if len(body) <= INLINE_BYTES:
                    rows = rows_of(call.headers, body, request_id=request_id)
                else:
                    rows = await self._threads.run(rows_of, call.headers, body, request_id=request_id)
                del body  # its rows have it
                await self._ask_many(call, resolved, rows, deadline, held)
                return
            if len(body) <= INLINE_BYTES:
                row = row_of(call.headers, body, request_id=request_id)
            else:
                row = await self._threads.run(row_of, call.headers, body, request_id=request_id)
            del body
            row = _as_served(row, resolved)
            if resolved.serving.streaming:
                await self._streams.answer(call, resolved, row, deadline, held)
            else:
                await self._ask(call, resolved, row, deadline, held)
        finally:
            if held is not None:
                held.release()

    def _deadline_of(self, call: Call) -> Deadline:
        asked, settings = call.headers.get(headers.REQUEST_TIMEOUT_MS), self._settings
        return Deadline.after(timeout_of(asked, default_s=settings.default_timeout_s, max_s=settings.max_timeout_s))

    def _done(
        self,
        call: Call,
        resolved: Resolved,
        job: Job,
        end: Callable[[], None],
        future: asyncio.Future[list[Answer]],
    ) -> None:
        """Answer a request that was begun without a task."""
        self._at_work.discard(job)
        call.channel.when_gone(None)
        call.accepted = job.started_at is not None
        end()
        error = future.exception()
        reply = None
        if error is None and job.started_at is not None:
            try:
                reply = reply_of(future.result()[0], resolved, call.ids, time.monotonic() - job.started_at)
            except Exception as exc:
                error = exc
        if isinstance(error, CallerLeft) or (reply and call.channel.answer_now(reply, close=self._drain.draining)):
            self._drain.leave()
            return

        async def finish() -> None:
            try:
                if reply is None:
                    assert error is not None
                    raise error
                await call.channel.answer(reply, close=self._drain.draining)
            finally:
                self._drain.leave()

        ending = asyncio.create_task(self._guarded(call, finish()), name="answer")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _ask(self, call: Call, resolved: Resolved, row: Row, deadline: Deadline, held: HeldBytes | None) -> None:
        job = Job([row], deadline, group=call.group, body=held)
        # When the client leaves, work that waits is dropped; what is in a worker goes on, and holds its slot.
        call.channel.when_gone(job.abandon)
        try:
            (answer,) = await self._pool.predict(resolved.record, resolved.serving, job)
        finally:
            call.channel.when_gone(None)
            call.accepted = job.started_at is not None
        assert job.started_at is not None
        await self._give(call, answer, resolved, job.started_at)

    async def _ask_many(
        self, call: HttpCall, resolved: Resolved, rows: list[Row], deadline: Deadline, held: HeldBytes | None
    ) -> None:
        """Answer an envelope of rows with an envelope of their answers, those that failed among them."""
        started = time.monotonic()
        many = ManyRows(self._pool, self._threads, resolved, deadline, group=call.group, body=held)
        try:
            with call.channel.cancelled_when_gone():
                answers = await many.ask(rows)
        finally:
            call.accepted = many.accepted
        errors = [answer for answer in answers if answer.kind == "error"]
        if errors:
            error = model_error(errors[0], resolved)
            log_failure(call, error, outcome=Outcome.MODEL_ERROR, rows=len(errors))
        failed = bool(errors) or any(answer.status >= 400 for answer in answers)
        # Whoever keeps answers must not take a failed row's for the model's last word.
        own = {"cache-control": "no-store"} if failed else {}
        whole = Answer(200, encode_answers(answers), "bytes", ROWS_CONTENT_TYPE, own)
        await self._give(call, whole, resolved, started)

    async def _give(self, call: Call, answer: Answer, resolved: Resolved, started: float) -> None:
        """Send a whole answer, which took since ``started``."""
        reply = reply_of(answer, resolved, call.ids, time.monotonic() - started)
        await call.channel.answer(reply, close=self._drain.draining)

    async def _refuse(self, call: Call, error: MarwayError) -> None:
        """Answer with the problem; an answer that has begun is cut off, so that its client sees that it is half."""
        outcome = outcome_of(error, accepted=call.accepted)
        log_failure(call, error, outcome=outcome)
        if call.channel.started:
            return
        late = isinstance(error, (DeadlineExceeded, Overloaded))
        unread = isinstance(error, BodyTooLarge) or (late and not call.channel.received)
        response = problem_response(error, request_id=call.ids.request_id, outcome=outcome)
        await call.channel.respond(response, close=unread or self._drain.draining)


def _as_served(row: Row, resolved: Resolved) -> Row:
    """Return the row with what its version's serving settings say of its answer."""
    if resolved.serving.nonfinite == "error":  # what a worker does unless told otherwise
        return row
    return replace(row, headers={**row.headers, headers.JSON_NONFINITE: resolved.serving.nonfinite})


def _stopped() -> Draining:
    return Draining("this pod stopped before it had the answer: send the request again")


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
