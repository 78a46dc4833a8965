"""The predict routes of a pod: reference → version → loaded → row → answer, whole or in pieces as they come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from starlette.types import Receive, Scope, Send

from marway.deadline import Deadline
from marway.errors import (
    ArchiveCorrupt,
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    LoadFailed,
    MarwayError,
    ModelError,
    ModelLoading,
    NotFound,
    Overloaded,
    RuntimeDown,
    Unavailable,
    VersionNotFound,
    clip,
)
from marway.resolve import Resolved, Resolver
from marway.wire import headers
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Row, encode_answers
from marway.wire.headers import Outcome
from marway.wire.request import read_ids, timeout_of
from marway_sidecar.adapters.base import NotLoaded, WorkerDied
from marway_sidecar.bodies import check_length, read_body
from marway_sidecar.body_budget import BodyBudget, HeldBytes
from marway_sidecar.draining import Drain
from marway_sidecar.http import Channel, ClientGone, problem_response
from marway_sidecar.many import ManyRows, holds_rows, rows_of
from marway_sidecar.pool import CallerLeft, Lease, ModelPool, Work
from marway_sidecar.replies import BODILESS, head_of, model_error
from marway_sidecar.rows import row_of
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["Predictor", "outcome_of"]

logger = logging.getLogger(__name__)


class Predictor:
    """ASGI app of the predict routes.

    Args:
        settings: Limits and time-outs.
        resolver: Finds the version.
        pool: Has it loaded.
        bodies: Sets memory aside for large ones.
        drain: Says whether requests are taken.
        threads: Where blocking work runs.
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every failure becomes a problem document with its outcome."""
        call = _Call(scope, Channel(scope, receive, send))
        try:
            self._drain.admit()
            try:
                await self._answer(call)
            finally:
                self._drain.leave()
        except (ClientGone, CallerLeft):
            return  # nobody reads an answer
        except MarwayError as exc:
            if isinstance(exc, VersionNotFound) and exc.model is not None:
                self._refused(exc.model)
            await self._refuse(call, exc)
        except asyncio.CancelledError:
            # Only the server cancels requests, when the time to drain is over.
            if call.channel.started:
                raise
            _uncancel()
            await self._refuse(call, Draining("this pod stopped before it had the answer: send the request again"))
        except Exception:
            logger.exception("request %s failed unexpectedly", call.ids.request_id)
            await self._refuse(
                call, MarwayError(f"something went wrong in the sidecar; its log has it under {call.ids.request_id}")
            )

    async def _answer(self, call: _Call) -> None:
        settings = self._settings
        asked = call.headers.get(headers.REQUEST_TIMEOUT_MS)
        timeout_s = timeout_of(asked, default_s=settings.default_timeout_s, max_s=settings.max_timeout_s)
        deadline = Deadline.after(timeout_s)
        length = call.headers.get("content-length")
        size = int(length) if length is not None else None
        check_length(size, settings.max_body_bytes)
        named = call.scope["path_params"]
        name, selector = named["model"], named.get("selector")
        resolved = self._resolver.lookup(name, selector) or await self._resolver.resolve(name, selector)
        body, held = await read_body(
            call.channel, size, limit=settings.max_body_bytes, budget=self._bodies, deadline=deadline
        )
        request_id = call.ids.request_id
        try:
            if holds_rows(call.headers.get("content-type")):
                rows = rows_of(call.headers, body, request_id=request_id)
                del body  # its rows have it
                await self._ask_many(call, resolved, rows, deadline, held)
                return
            row = await row_of(call.headers, body, request_id=request_id)
            del body
            if resolved.serving.streaming:
                await self._ask_for_stream(call, resolved, row, deadline, held)
            else:
                await self._ask(call, resolved, row, deadline, held)
        finally:
            if held is not None:
                held.release()

    async def _ask(self, call: _Call, resolved: Resolved, row: Row, deadline: Deadline, held: HeldBytes | None) -> None:
        work = Work([row], deadline, group=call.group, body=held)
        # When the client leaves, work that waits is dropped; what is in a worker goes on, and holds its slot.
        call.channel.when_gone(work.abandon)
        try:
            (answer,) = await self._pool.predict(resolved.record, resolved.serving, work)
        finally:
            call.channel.when_gone(None)
            call.accepted = work.started_at is not None
        assert work.started_at is not None
        await self._give(call, answer, resolved, work.started_at)

    async def _ask_many(
        self, call: _Call, resolved: Resolved, rows: list[Row], deadline: Deadline, held: HeldBytes | None
    ) -> None:
        """Answer an envelope of rows with an envelope of their answers, those that failed among them."""
        started = time.monotonic()
        many = ManyRows(self._pool, self._threads, resolved, deadline, group=call.group, body=held)
        try:
            with call.channel.cancelled_when_gone():
                answers = await many.ask(rows)
        finally:
            call.accepted = many.accepted
        failed = any(answer.kind == "error" or answer.status >= 400 for answer in answers)
        # Whoever keeps answers must not take a failed row's for the model's last word.
        own = {"cache-control": "no-store"} if failed else {}
        whole = Answer(200, encode_answers(answers), "bytes", ROWS_CONTENT_TYPE, own)
        await self._give(call, whole, resolved, started)

    async def _ask_for_stream(
        self, call: _Call, resolved: Resolved, row: Row, deadline: Deadline, held: HeldBytes | None
    ) -> None:
        for attempt in (1, 2):
            try:
                async with AsyncExitStack() as stack:
                    with call.channel.cancelled_when_gone():
                        leasing = self._pool.lease(
                            resolved.record, resolved.serving, deadline, group=call.group, body=held
                        )
                        lease = await stack.enter_async_context(leasing)
                    call.accepted = True
                    await self._stream(call, resolved, lease, row, deadline)
                return
            except NotLoaded:
                # The server lost it (it was restarted under us) and ran nothing: load it again, once.
                call.accepted = False
                if attempt == 2:
                    raise

    async def _stream(self, call: _Call, resolved: Resolved, lease: Lease, row: Row, deadline: Deadline) -> None:
        """Pass on pieces as they come; the first one's status and headers stand for all."""
        started = time.monotonic()
        pieces = lease.server.predict_stream(lease.model, row, deadline)
        try:
            with call.channel.cancelled_when_gone():
                # A client that reads too slowly holds the stream up, and must not do so beyond the deadline.
                async with asyncio.timeout(deadline.remaining()):
                    async for piece in pieces:
                        if piece.kind == "error":
                            raise model_error(piece, resolved)
                        if not call.channel.started:
                            head = head_of(piece, resolved, call.ids, time.monotonic() - started)
                            await call.channel.begin(piece.status, head, close=self._drain.draining)
                        if piece.body and piece.status not in BODILESS:
                            await call.channel.send(
                                {"type": "http.response.body", "body": piece.body, "more_body": True}
                            )
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed before the last piece of the answer was read") from exc
        finally:
            await _closed(pieces)
        if not call.channel.started:
            raise ModelError(
                "the handler ended without an answer", model=resolved.record.name, version=resolved.record.version
            )
        await call.channel.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _give(self, call: _Call, answer: Answer, resolved: Resolved, started: float) -> None:
        """Send a whole answer, which took since ``started``."""
        head = head_of(answer, resolved, call.ids, time.monotonic() - started)
        if answer.status in BODILESS:
            await call.channel.answer(answer.status, head, b"", close=self._drain.draining)
        else:
            head += b"content-length: %d\r\n" % len(answer.body)
            await call.channel.answer(answer.status, head, answer.body, close=self._drain.draining)

    async def _refuse(self, call: _Call, error: MarwayError) -> None:
        """Answer with the problem; an answer that has begun is cut off, so that its client sees that it is half."""
        if call.channel.started:
            logger.warning("request %s broke off: %s", call.ids.request_id, clip(error.message, 300))
            return
        unread = isinstance(error, BodyTooLarge) or (isinstance(error, DeadlineExceeded) and not call.channel.received)
        outcome = outcome_of(error, accepted=call.accepted)
        response = problem_response(error, request_id=call.ids.request_id, outcome=outcome)
        await call.channel.respond(response, close=unread or self._drain.draining)


class _Call:
    """One request: its headers and ids, its client, and whether the model server was given it."""

    __slots__ = ("accepted", "channel", "headers", "ids", "scope")

    def __init__(self, scope: Scope, channel: Channel) -> None:
        self.scope = scope
        self.channel = channel
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.ids = read_ids(self.headers.get)
        self.accepted = False

    @property
    def group(self) -> str:
        """Whose turn it is to be in a queue: the group that the caller named, else whoever is connected."""
        if self.ids.group_id is not None:
            return self.ids.group_id
        client: tuple[str, int] | None = self.scope["client"]
        return client[0] if client is not None else ""


def outcome_of(error: MarwayError, *, accepted: bool) -> str:
    """Return what a gateway is told about a failed request.

    Args:
        error: Why it failed.
        accepted: Whether the request went to the model server.
    """
    if isinstance(error, ModelError):
        return Outcome.MODEL_ERROR
    if isinstance(error, (InvalidInput, NotFound)):
        return Outcome.REFUSED
    if isinstance(error, (RuntimeDown, Draining)):
        # A pod that stops with the request in hand is lost to it as one whose server went away.
        return Outcome.RUNTIME_DOWN if accepted else Outcome.NOT_ACCEPTED
    if isinstance(error, (LoadFailed, ArchiveCorrupt, DeadlineExceeded, ModelLoading)):
        return Outcome.FAILED
    if isinstance(error, WorkerDied):
        return Outcome.WORKER_DIED
    if isinstance(error, Overloaded) or (isinstance(error, Unavailable) and not accepted):
        return Outcome.NOT_ACCEPTED  # a full queue in the model server: nothing was run
    return Outcome.FAILED


async def _closed(pieces: AsyncIterator[Answer]) -> None:
    """End a stream that may not have been read to its end, now and not when its memory is reclaimed."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
