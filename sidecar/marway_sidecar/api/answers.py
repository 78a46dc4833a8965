"""A model's answer as it goes back to the client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from marway.errors import ModelError
from marway.resolve import Resolved
from marway.wire import headers
from marway.wire.envelope import Answer
from marway.wire.headers import Outcome, content_type_fault, header_fault, status_fault
from marway.wire.model_run import ModelRun
from marway.wire.request import RequestIds
from marway_http.channel import HeaderBlock
from marway_sidecar.errors import about

__all__ = ["BODILESS", "answer_of", "fault_of", "finite_of", "header_lines", "headers_of", "model_error"]

BODILESS: Final = frozenset({204, 304})
"""Statuses of answers that have no body, whatever the handler gave."""
_DEFAULT_CONTENT_TYPES: Final = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "bytes": "application/octet-stream",
    "tensor": "application/octet-stream",
}
_LOOKED_INTO_BYTES: Final = 64 * 1024
_NOT_THE_HANDLERS: Final = frozenset(
    {
        *headers.HOP_BY_HOP,
        *("content-length", "content-type", "date", "server", headers.OUTCOME, headers.RUN),
        *(headers.MODEL_NAME, headers.MODEL_VERSION, headers.MODEL_ID, headers.REQUEST_ID, headers.SERVER_TIMING),
    }
)
"""Headers of an answer that are Marway's to set."""


def fault_of(answer: Answer) -> str | None:
    """Return why an answer's status or headers cannot be sent, None when they can."""
    fault = status_fault(answer.status) or content_type_fault(answer.content_type)
    return header_fault(answer.headers) if fault is None and answer.headers else fault


def headers_of(
    answer: Answer, resolved: Resolved, ids: RequestIds, run: ModelRun, *, length: int | None = None
) -> HeaderBlock:
    """Return the headers of an answer as they go out; what they hold can be trusted to be headers.

    ``run`` is how the model server ran it; ``length`` is of the body that follows, None for none and for one in pieces.

    Raises:
        ModelError: The answer is a failure, or the handler set a status or headers that no answer can have.
    """
    record = resolved.record
    if answer.kind == "error":
        raise model_error(answer, resolved)
    fault = fault_of(answer)
    if fault is not None:
        raise about(record, ModelError(fault))
    shared, number = _shared_lines(answer.kind, answer.content_type, record.name, record.version, record.id)
    own = (
        f"x-request-id: {ids.request_id}\r\n"
        f"server-timing: model;dur={(run.model_s or 0.0) * 1000:.2f}\r\n"
        f"{headers.RUN}: {run.header()}\r\n"
    )
    number += 3
    if ids.group_id is not None:
        own += f"{headers.REQUEST_GROUP_ID}: {ids.group_id}\r\n"
        number += 1
    if answer.headers:
        # By their names in lower case, of which the last one counts.
        handlers = {name.lower(): value.strip(" \t") for name, value in answer.headers.items()}
        for name, value in handlers.items():
            if name not in _NOT_THE_HANDLERS and not (name == headers.REQUEST_GROUP_ID and ids.group_id is not None):
                own += f"{name}: {value}\r\n"
                number += 1
    if length is not None:
        own += f"content-length: {length}\r\n"
        number += 1
    return HeaderBlock(shared + own.encode("latin-1"), number, len(shared))


def answer_of(answer: Answer, resolved: Resolved, ids: RequestIds, run: ModelRun) -> tuple[int, HeaderBlock, bytes]:
    """Return the status, the headers and the body of a whole answer; arguments and errors as `headers_of` has them."""
    body = b"" if answer.status in BODILESS else answer.body
    length = None if answer.status in BODILESS else len(body)
    return answer.status, headers_of(answer, resolved, ids, run, length=length), body


def finite_of(answers: Sequence[Answer], *, nulls: bool = False) -> bool | None:
    """Return whether all numbers in a request's answers are finite; None where nobody can tell without much work.

    A handler may say that one is not (`headers.NONFINITE`); JSON is looked at here, tensors, text and bytes are not.
    With ``nulls`` a null in it may have been such a number.
    """
    known: bool | None = True
    for answer in answers:
        if answer.headers and any(name.lower() == headers.NONFINITE for name in answer.headers):
            return False
        if answer.kind != "json" or (nulls and b"null" in answer.body):
            known = None
        elif _names_constant(answer.body):  # which may be somebody's text
            if len(answer.body) > _LOOKED_INTO_BYTES:
                known = None
            elif _holds_constant(answer.body):
                return False
    return known


def _names_constant(body: bytes) -> bool:
    """Return whether one of JavaScript's words for such numbers stands in it; looking for one byte is fast."""
    return (b"N" in body and b"NaN" in body) or (b"I" in body and b"Infinity" in body)


def _holds_constant(body: bytes) -> bool:
    """Return whether JSON holds a number that JSON has not."""
    found: list[str] = []
    try:
        json.loads(body, parse_constant=found.append)
    except (ValueError, RecursionError):
        return False
    return bool(found)


def model_error(answer: Answer, resolved: Resolved) -> ModelError:
    """Return the error that an answer of kind "error" stands for."""
    status = answer.status if 400 <= answer.status <= 599 else 500
    return about(resolved.record, ModelError(answer.body.decode(errors="replace"), status=status))


@lru_cache(maxsize=1024)
def _shared_lines(kind: str, content_type: str | None, name: str, version: str, record_id: str) -> tuple[bytes, int]:
    """Return the lines that nearly all answers of a version have alike, and how many they are."""
    sent = {
        "content-type": content_type or _DEFAULT_CONTENT_TYPES.get(kind, "application/octet-stream"),
        headers.OUTCOME: Outcome.ANSWERED,
        headers.MODEL_NAME: name,
        headers.MODEL_VERSION: version,
        headers.MODEL_ID: record_id,
    }
    return header_lines(sent), len(sent)


def header_lines(sent: Mapping[str, str]) -> bytes:
    """Return headers as they go out, a line each."""
    return "".join([f"{name}: {value}\r\n" for name, value in sent.items()]).encode("latin-1")
