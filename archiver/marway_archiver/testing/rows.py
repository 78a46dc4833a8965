"""Requests, as TorchServe's REST front end hands them to a handler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marway.wire import envelope
from marway.wire.envelope import RAW_BODY, Part
from marway.wire.raw_body import RawBody
from marway.worker.requests import Request, request_headers, request_of

__all__ = ["AnyRow", "Row", "bytes_row", "form_row", "json_row", "request", "text_row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One request whose values are given as the handler gets them.

    Attributes:
        inputs: What the handler gets: a raw body under `data`, or each field of a form under its name.
        content_types: Of each input, as far as it has one.
        headers: Request headers that the handler may ask the context for, names in lower case.
        raw: Whether the one input, `data`, is a raw body, which answers to `body` as well.
    """

    inputs: Mapping[str, Any]
    content_types: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False


AnyRow = Row | envelope.Row | Mapping[str, Any]
"""A row in any form; a mapping is its inputs."""


def text_row(text: str) -> envelope.Row:
    """Return the request of `curl -H 'content-type: text/plain' -d TEXT`: the handler gets a str."""
    return bytes_row(text.encode(), "text/plain")


def json_row(value: Any) -> envelope.Row:
    """Return a request with a JSON body: the handler gets the parsed value."""
    return bytes_row(json.dumps(value, ensure_ascii=False).encode(), "application/json")


def bytes_row(body: bytes, content_type: str | None = None, **headers: str) -> envelope.Row:
    """Return a request with any body: parsed for JSON, a str for `text/*`, else a bytearray."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    if content_type is not None:
        sent.setdefault("content-type", content_type)
    return envelope.Row("", [Part(RAW_BODY, body, content_type)], sent)


def form_row(**fields: bytes | str) -> envelope.Row:
    """Return a multipart request: the handler gets each field's bytes under its name."""
    parts = [Part(name, value.encode() if isinstance(value, str) else value) for name, value in fields.items()]
    return envelope.Row("", parts, {"content-type": "multipart/form-data"})


def request(given: AnyRow, index: int) -> Request:
    """Return row ``index`` of a call as a handler is given it."""
    request_id = f"request-{index}"
    if isinstance(given, envelope.Row):
        return request_of(given)._replace(request_id=request_id, nonfinite="allow")
    row = given if isinstance(given, Row) else Row(given)
    types = {name: row.content_types.get(name) for name in row.inputs}
    headers = request_headers(types, row.headers, raw=row.raw)
    return Request(request_id, headers, lambda: (RawBody if row.raw else dict)(row.inputs), "allow")
