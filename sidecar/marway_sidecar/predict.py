"""The predict routes of a pod: reference → version → loaded → row → answer, whole or in pieces as they come."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
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
from marway.wire.request import RequestIds, read_ids, timeout_of
from marway_sidecar.adapters.base import NotLoaded, WorkerDied
from marway_sidecar.draining import Drain
from marway_sidecar.http import Channel, ClientGone, problem_response
from marway_sidecar.many import ManyRows, holds_rows, rows_of
from marway_sidecar.pool import Lease, ModelPool, Work
from marway_sidecar.rows import read_body, row_of
from marway_sidecar.settings import SidecarSettings
from marway_sidecar.threads import Threads

__all__ = ["Predictor", "outcome_of"]

logger = logging.getLogger(__name__)

_DEFAULT_CONTENT_TYPES: Final = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "bytes": "application/octet-stream",
    "tensor": "application/octet-stream",
}
_BODILESS: Final = frozenset({204, 304})
# What a handler's headers may hold: tokens, and values that HTTP can carry (RFC 9110 §5.5).
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e\xa0-\xff]+")
_OWN_HEADERS: Final = frozenset(
    {*headers.HOP_BY_HOP, "content-length", "content-type", "date", "server", headers.OUTCOME}
)


class Predictor:
    """ASGI app of the predict routes.

    Args:
        settings: Limits and time-outs.
        resolver: Finds the version.
        pool: Has it loaded.
        drain: Says whether requests are taken.
        threads: Where blocking work runs.
        refused: Told the model of each request for a version that is not there.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        resolver: Resolver,
        pool: ModelPool,
        drain: Drain,
        threads: Threads,
        *,
        refused: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._pool = pool
        self._drain = drain
        self._threads = threads
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every failure becomes a problem document with its outcome."""
        channel = Channel(receive, send)
        request = Request(scope, channel.receive)
        call = _Call(request, channel, read_ids(request.headers.get))
        try:
            with self._drain.request():
                await self._answer(call)
        except (ClientDisconnect, ClientGone):
            return  # nobody reads an answer
        except MarwayError as exc:
            if isinstance(exc, VersionNotFound) and exc.model is not None:
                self._refused(exc.model)
            await self._refuse(call, exc)
        except asyncio.CancelledError:
            # Only the server cancels requests, when the time to drain is over.
            if channel.started:
                raise
            _uncancel()
            await self._refuse(call, Draining("this pod stopped before it had the answer: send the request again"))
        except Exception:
            logger.exception("request %s failed unexpectedly", call.ids.request_id)
            await self._refuse(
                call, MarwayError(f"something went wrong in the sidecar; its log has it under {call.ids.request_id}")
            )

    async def _answer(self, call: _Call) -> None:
        request, settings = call.request, self._settings
        timeout_s = timeout_of(
            request.headers.get(headers.REQUEST_TIMEOUT_MS),
            default_s=settings.default_timeout_s,
            max_s=settings.max_timeout_s,
        )
        deadline = Deadline.after(timeout_s)
        _check_length(request, settings.max_body_bytes)
        resolved = await self._resolver.resolve(request.path_params["model"], request.path_params.get("selector"))
        try:
            async with asyncio.timeout(deadline.remaining()):
                body = await read_body(request, limit=settings.max_body_bytes)
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed before the whole body had come") from exc
        if holds_rows(request):
            await self._ask_many(call, resolved, rows_of(request, body, request_id=call.ids.request_id), deadline)
            return
        row = await row_of(request, body, request_id=call.ids.request_id)
        if not resolved.serving.streaming:
            await self._ask(call, resolved, row, deadline)
            return
        for attempt in (1, 2):
            try:
                await self._ask_for_stream(call, resolved, row, deadline)
                return
            except NotLoaded:
                # The server lost it (it was restarted under us) and ran nothing: load it again, once.
                call.accepted = False
                if attempt == 2:
                    raise

    async def _ask(self, call: _Call, resolved: Resolved, row: Row, deadline: Deadline) -> None:
        work = Work([row], deadline)
        try:
            # When the client leaves, work that waits is dropped; what is in a worker goes on, and holds its slot.
            with call.channel.cancelled_when_gone():
                (answer,) = await self._pool.predict(resolved.record, resolved.serving, work)
        finally:
            call.accepted = work.started
        assert work.started_at is not None
        await self._respond(call, _whole(answer, resolved, call.ids, time.monotonic() - work.started_at))

    async def _ask_for_stream(self, call: _Call, resolved: Resolved, row: Row, deadline: Deadline) -> None:
        async with AsyncExitStack() as held:
            with call.channel.cancelled_when_gone():
                lease = await held.enter_async_context(self._pool.lease(resolved.record, resolved.serving, deadline))
            call.accepted = True
            await self._stream(call, resolved, lease, row, deadline)

    async def _ask_many(self, call: _Call, resolved: Resolved, rows: list[Row], deadline: Deadline) -> None:
        """Answer an envelope of rows with an envelope of their answers, those that failed among them."""
        started = time.monotonic()
        many = ManyRows(self._pool, self._threads, resolved, deadline)
        try:
            with call.channel.cancelled_when_gone():
                answers = await many.ask(rows)
        finally:
            call.accepted = many.accepted
        failed = any(answer.kind == "error" or answer.status >= 400 for answer in answers)
        # Whoever keeps answers must not take a failed row's for the model's last word.
        own = {"cache-control": "no-store"} if failed else {}
        whole = Answer(200, encode_answers(answers), "bytes", ROWS_CONTENT_TYPE, own)
        await self._respond(call, _whole(whole, resolved, call.ids, time.monotonic() - started))

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
                            raise _model_error(piece, resolved)
                        if not call.channel.started:
                            sent = _headers(piece, resolved, call.ids, time.monotonic() - started)
                            if self._drain.draining:
                                sent["connection"] = "close"
                            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
                            await call.channel.send(
                                {"type": "http.response.start", "status": piece.status, "headers": raw}
                            )
                        if piece.body and piece.status not in _BODILESS:
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

    async def _respond(self, call: _Call, response: Response, *, close: bool = False) -> None:
        await call.channel.respond(call.request.scope, response, close=close or self._drain.draining)

    async def _refuse(self, call: _Call, error: MarwayError) -> None:
        """Answer with the problem; an answer that has begun is cut off, so that its client sees that it is half."""
        if call.channel.started:
            logger.warning("request %s broke off: %s", call.ids.request_id, clip(error.message, 300))
            return
        unread = isinstance(error, BodyTooLarge) or (isinstance(error, DeadlineExceeded) and not call.channel.received)
        outcome = outcome_of(error, accepted=call.accepted)
        await self._respond(
            call, problem_response(error, request_id=call.ids.request_id, outcome=outcome), close=unread
        )


class _Call:
    """One request: its ids, its client, and whether a lease was had for it."""

    __slots__ = ("accepted", "channel", "ids", "request")

    def __init__(self, request: Request, channel: Channel, ids: RequestIds) -> None:
        self.request = request
        self.channel = channel
        self.ids = ids
        self.accepted = False


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


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise BodyTooLarge(f"the body has {length} bytes; the limit is {limit}: send less at once")


def _whole(answer: Answer, resolved: Resolved, ids: RequestIds, duration_s: float) -> Response:
    if answer.kind == "error":
        raise _model_error(answer, resolved)
    sent = _headers(answer, resolved, ids, duration_s)
    return Response(b"" if answer.status in _BODILESS else answer.body, answer.status, sent)


def _model_error(answer: Answer, resolved: Resolved) -> ModelError:
    return ModelError(
        answer.body.decode(errors="replace"),
        status=answer.status if 400 <= answer.status <= 599 else 500,
        model=resolved.record.name,
        version=resolved.record.version,
    )


def _headers(answer: Answer, resolved: Resolved, ids: RequestIds, duration_s: float) -> dict[str, str]:
    """Return the headers of an answer.

    Raises:
        ModelError: The handler set a status that no answer can have.
    """
    record = resolved.record
    if not 200 <= answer.status <= 599:
        raise ModelError(f"the handler set the status {answer.status}", model=record.name, version=record.version)
    sent = {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower() not in _OWN_HEADERS and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    }
    content_type = answer.content_type or ""
    if not _VALUE.fullmatch(content_type):
        content_type = _DEFAULT_CONTENT_TYPES.get(answer.kind, "application/octet-stream")
    sent["content-type"] = content_type
    sent[headers.OUTCOME] = Outcome.ANSWERED
    sent[headers.REQUEST_ID] = ids.request_id
    if ids.group_id is not None:
        sent[headers.REQUEST_GROUP_ID] = ids.group_id
    sent[headers.MODEL_NAME] = record.name
    sent[headers.MODEL_VERSION] = record.version
    sent[headers.MODEL_ID] = record.id
    sent[headers.SERVER_TIMING] = f"model;dur={duration_s * 1000:.2f}"
    return sent


async def _closed(pieces: AsyncIterator[Answer]) -> None:
    """End a stream that may not have been read to its end, now and not when its memory is reclaimed."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
