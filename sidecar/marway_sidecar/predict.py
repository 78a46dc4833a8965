"""The predict routes of a pod: reference → version → loaded → row → answer."""

from __future__ import annotations

import re
import time

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from marway.deadline import Deadline
from marway.errors import (
    ArchiveCorrupt,
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    InvalidRequest,
    LoadFailed,
    MarwayError,
    ModelError,
    ModelLoading,
    NotFound,
    Overloaded,
    RuntimeDown,
    Unavailable,
)
from marway.refs import new_ulid
from marway.resolve import Resolved, Resolver
from marway.wire import headers, problems
from marway.wire.envelope import Answer
from marway.wire.headers import Outcome
from marway_sidecar.adapters.base import NotLoaded, WorkerDied
from marway_sidecar.pool import ModelPool
from marway_sidecar.rows import read_body, row_of
from marway_sidecar.settings import SidecarSettings

__all__ = ["Predictor", "problem_response"]

_DEFAULT_CONTENT_TYPES = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "bytes": "application/octet-stream",
    "tensor": "application/octet-stream",
}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset({*headers.HOP_BY_HOP, "content-length", "content-type", "date", "server", headers.OUTCOME})


class Predictor:
    """Answers predict requests.

    Args:
        settings: Limits and time-outs.
        resolver: Finds the version.
        pool: Has it loaded.
    """

    def __init__(self, settings: SidecarSettings, resolver: Resolver, pool: ModelPool) -> None:
        self._settings = settings
        self._resolver = resolver
        self._pool = pool
        self.draining = False

    async def __call__(self, request: Request) -> Response:
        """Answer one request; every failure becomes a problem document with its outcome."""
        request_id = request_id_of(request)
        accepted = False
        try:
            if self.draining:
                raise Draining("this pod is stopping")
            deadline = self._deadline(request)
            _check_length(request, self._settings.max_body_bytes)
            resolved = await self._resolver.resolve(request.path_params["model"], request.path_params.get("selector"))
            body = await read_body(request, limit=self._settings.max_body_bytes)
            row = await row_of(request, body, request_id=request_id)
            for attempt in (1, 2):
                try:
                    async with self._pool.lease(resolved.record, resolved.serving, deadline) as lease:
                        accepted = True
                        started = time.monotonic()
                        (answer,) = await lease.server.predict(lease.model, [row], deadline)
                        return _answer_response(answer, resolved, request_id, time.monotonic() - started)
                except NotLoaded:
                    # The server lost it (it was restarted under us): load it again, once.
                    accepted = False
                    if attempt == 2:
                        raise
            raise AssertionError("unreachable")
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except MarwayError as exc:
            return problem_response(exc, request_id=request_id, outcome=outcome_of(exc, accepted=accepted))

    def _deadline(self, request: Request) -> Deadline:
        text = request.headers.get(headers.REQUEST_TIMEOUT_MS)
        if text is None:
            return Deadline.after(self._settings.default_timeout_s)
        if not text.isascii() or not text.isdigit() or int(text) == 0 or len(text) > 9:
            raise InvalidRequest(
                f"X-Request-Timeout-Ms must be milliseconds, a whole number from 1 on, not {text[:40]!r}"
            )
        return Deadline.after(int(text) / 1000)


def request_id_of(request: Request) -> str:
    """Return the caller's request id when it is printable and short, else a new one."""
    given = request.headers.get(headers.REQUEST_ID, "")
    return given if _REQUEST_ID.fullmatch(given) else new_ulid()


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
    if isinstance(error, RuntimeDown):
        return Outcome.RUNTIME_DOWN if accepted else Outcome.NOT_ACCEPTED
    if isinstance(error, (LoadFailed, ArchiveCorrupt, DeadlineExceeded, ModelLoading)):
        return Outcome.FAILED
    if isinstance(error, WorkerDied):
        return Outcome.WORKER_DIED
    if isinstance(error, Overloaded) or (isinstance(error, Unavailable) and not accepted):
        return Outcome.NOT_ACCEPTED  # a full queue in the model server: nothing was run
    return Outcome.FAILED


def problem_response(error: MarwayError, *, request_id: str | None = None, outcome: str | None = None) -> Response:
    """Return the problem document for ``error``."""
    problem, extra = problems.problem_of(error, request_id=request_id)
    if request_id is not None:
        extra[headers.REQUEST_ID] = request_id
    if outcome is not None:
        extra[headers.OUTCOME] = outcome
    if isinstance(error, BodyTooLarge):
        extra["connection"] = "close"  # the rest of the body is on its way and nobody reads it
    return Response(problem.body(), problem.status, extra, media_type=problems.CONTENT_TYPE)


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise BodyTooLarge(f"the body has {length} bytes; the limit is {limit}: send less at once")


def _answer_response(answer: Answer, resolved: Resolved, request_id: str, duration_s: float) -> Response:
    record = resolved.record
    if answer.kind == "error":
        message = answer.body.decode(errors="replace")
        error = ModelError(
            message,
            status=answer.status if 400 <= answer.status <= 599 else 500,
            model=record.name,
            version=record.version,
        )
        return problem_response(error, request_id=request_id, outcome=Outcome.MODEL_ERROR)
    sent = {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower() not in _OWN_HEADERS and _HEADER_NAME.fullmatch(name) and value.isprintable()
    }
    sent["content-type"] = answer.content_type or _DEFAULT_CONTENT_TYPES.get(answer.kind, "application/octet-stream")
    sent[headers.OUTCOME] = Outcome.ANSWERED
    sent[headers.REQUEST_ID] = request_id
    sent[headers.MODEL_NAME] = record.name
    sent[headers.MODEL_VERSION] = record.version
    sent[headers.MODEL_ID] = record.id
    sent[headers.SERVER_TIMING] = f"model;dur={duration_s * 1000:.2f}"
    return Response(answer.body, answer.status, sent)
