"""Rows as requests of the REST API that TorchServe has from Multi Model Server, and its answers as answers of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marway.wire.envelope import Answer, Row, mime_type
from marway.wire.headers import HOP_BY_HOP, JSON_NONFINITE, TIMED

__all__ = ["answer_of", "request_of"]

_NOT_SENT: Final = HOP_BY_HOP | {
    "accept-encoding",
    "authorization",
    "content-length",
    "content-type",
    "host",
    JSON_NONFINITE,  # for our own worker
    TIMED,
}
_SERVERS_OWN: Final = HOP_BY_HOP | {
    "cache-control",
    "content-length",
    "content-type",
    "expires",
    "pragma",
    "x-request-id",
}
"""What the server sets on every answer; nothing that a handler said."""


def request_of(row: Row) -> dict[str, Any]:
    """Return the arguments of an httpx request: a raw body as it is, anything else as multipart fields."""
    headers = {name: value for name, value in row.headers.items() if name not in _NOT_SENT}
    if not row.is_raw:
        # A field with a content type travels as a file, the only kind of field whose content type the server reads.
        files = [
            (part.name, ("part" if part.content_type else None, part.value, part.content_type)) for part in row.parts
        ]
        return {"headers": headers, "files": files}
    (part,) = row.parts
    if part.content_type:
        headers["content-type"] = part.content_type
        if mime_type(part.content_type) == "application/x-www-form-urlencoded":
            headers["content-type"] = "application/octet-stream"  # text that is no form: the server would lose it
    return {"headers": headers, "content": part.value}


def answer_of(status: int, body: bytes, headers: Mapping[str, str], *, piece: bool = False) -> Answer:
    """Return the answer. Nothing says what the handler returned: what is JSON counts as such, else UTF-8 as text.

    Args:
        status: As the handler set it.
        body: The handler's answer as the server encoded it.
        headers: As the server sent them.
        piece: Whether it is a piece of an answer: it is then text or bytes.
    """
    own = {name: value for name, value in headers.items() if name.lower() not in _SERVERS_OWN}
    return Answer(status, body, _kind(body, piece=piece), headers.get("content-type"), own)


def _kind(body: bytes, *, piece: bool) -> str:
    try:
        text = body.decode()
        if piece:
            return "text"
        json.loads(text)
    except UnicodeDecodeError:
        return "bytes"
    except ValueError:
        return "text"
    return "json"
