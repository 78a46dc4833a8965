"""From a model's answer to the status and headers that a client gets."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from marway.errors import ModelError
from marway.resolve import Resolved
from marway.wire import headers
from marway.wire.answer_headers import content_type_fault, header_fault, status_fault
from marway.wire.envelope import Answer
from marway.wire.headers import Outcome
from marway.wire.request import RequestIds
from marway_sidecar.api.channel import Reply

__all__ = ["BODILESS", "head_of", "model_error", "reply_of"]

BODILESS: Final = frozenset({204, 304})
"""Statuses of answers that have no body, whatever the handler gave."""
_DEFAULT_CONTENT_TYPES: Final = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "bytes": "application/octet-stream",
    "tensor": "application/octet-stream",
}
_OWN_HEADERS: Final = frozenset(
    {*headers.HOP_BY_HOP, "content-length", "content-type", "date", "server", headers.OUTCOME}
)


def head_of(answer: Answer, resolved: Resolved, ids: RequestIds, duration_s: float) -> bytes:
    """Return the header lines of an answer as they go out, each with its end; what they hold can be trusted to be one.

    Raises:
        ModelError: The answer is a failure, or the handler set a status or headers that no answer can have.
    """
    known, own = _heads_of(answer, resolved, ids, duration_s)
    return known + own


def _heads_of(answer: Answer, resolved: Resolved, ids: RequestIds, duration_s: float) -> tuple[bytes, bytes]:
    """Return the lines that are the same for nearly all answers of a version, and this one's."""
    record = resolved.record
    if answer.kind == "error":
        raise model_error(answer, resolved)
    fault = status_fault(answer.status) or content_type_fault(answer.content_type)
    if answer.headers and fault is None:
        fault = header_fault(answer.headers)
    if fault is not None:
        raise ModelError(fault, model=record.name, version=record.version)
    known = _known_lines(answer.kind, answer.content_type, record.name, record.version, record.id)
    own = b"x-request-id: %b\r\nserver-timing: model;dur=%.2f\r\n" % (
        ids.request_id.encode("latin-1"),
        duration_s * 1000,
    )
    if ids.group_id is not None:
        own += f"{headers.REQUEST_GROUP_ID}: {ids.group_id}\r\n".encode("latin-1")
    if answer.headers:
        own += _own_lines(answer, known + own)
    return known, own


def reply_of(answer: Answer, resolved: Resolved, ids: RequestIds, duration_s: float) -> Reply:
    """Return a whole answer as it goes out; raises as `head_of`."""
    known, own = _heads_of(answer, resolved, ids, duration_s)
    if answer.status in BODILESS:
        return Reply(answer.status, known + own, b"", len(known))
    head = b"%b%bcontent-length: %d\r\n" % (known, own, len(answer.body))
    return Reply(answer.status, head, answer.body, len(known))


def model_error(answer: Answer, resolved: Resolved) -> ModelError:
    """Return the error that an answer of kind "error" stands for."""
    return ModelError(
        answer.body.decode(errors="replace"),
        status=answer.status if 400 <= answer.status <= 599 else 500,
        model=resolved.record.name,
        version=resolved.record.version,
    )


@lru_cache(maxsize=1024)
def _known_lines(kind: str, content_type: str | None, name: str, version: str, record_id: str) -> bytes:
    """Return the lines that are the same for nearly all answers of a version."""
    if not content_type:
        content_type = _DEFAULT_CONTENT_TYPES.get(kind, "application/octet-stream")
    sent = {
        "content-type": content_type,
        headers.OUTCOME: Outcome.ANSWERED,
        headers.MODEL_NAME: name,
        headers.MODEL_VERSION: version,
        headers.MODEL_ID: record_id,
    }
    return "".join(f"{name}: {value}\r\n" for name, value in sent.items()).encode("latin-1")


def _own_lines(answer: Answer, head: bytes) -> bytes:
    """Return the handler's own headers, save those that are ours to set."""
    ours = {line.partition(b":")[0].decode() for line in head.split(b"\r\n")}
    sent = {
        name.lower(): value.strip(" \t") for name, value in answer.headers.items() if name.lower() not in _OWN_HEADERS
    }
    return "".join(f"{name}: {value}\r\n" for name, value in sent.items() if name not in ours).encode("latin-1")
