"""A row as a request to TorchServe's REST inference API, and its response as an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marway.wire.envelope import Answer, Part, Row, mime_type
from marway.wire.headers import HOP_BY_HOP, JSON_NONFINITE, is_incidental

__all__ = ["answer_of", "needs_rest", "rest_request"]

_NOBODY_ASKS: Final = frozenset(
    {
        "accept",
        "accept-language",
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "tracestate",
        "x-request-group-id",
        "x-request-id",
        "x-request-timeout-ms",
        JSON_NONFINITE,
    }
)
"""Headers that nearly every request has: no reason to leave gRPC."""
_NOT_SENT: Final = HOP_BY_HOP | {
    "accept-encoding",
    "authorization",
    "content-length",
    "content-type",
    "host",
    JSON_NONFINITE,  # for our own worker
}
_SERVERS_OWN: Final = HOP_BY_HOP | {
    "cache-control",
    "content-length",
    "content-type",
    "expires",
    "pragma",
    "x-request-id",
}
"""What TorchServe sets on every answer; nothing that a handler said."""


def needs_rest(row: Row) -> bool:
    """Return whether the handler would miss something if ``row`` came over gRPC, which carries bytes by name only."""
    if any(_is_parsed(part) for part in row.parts):
        return True
    return any(name not in _NOBODY_ASKS and name not in HOP_BY_HOP and not is_incidental(name) for name in row.headers)


def rest_request(row: Row) -> dict[str, Any]:
    """Return the arguments of an httpx request: a raw body as it is, anything else as multipart fields."""
    # TorchServe takes any request with "/token" in it, even in a header, for a call of its token API.
    headers = {
        name: value for name, value in row.headers.items() if name not in _NOT_SENT and "/token" not in name + value
    }
    if not row.is_raw:
        # A field with a content type travels as a file, the only kind of field whose content type TorchServe reads.
        files = [
            (part.name, ("part" if part.content_type else None, part.value, part.content_type)) for part in row.parts
        ]
        return {"headers": headers, "files": files}
    (part,) = row.parts
    if part.content_type:
        headers["content-type"] = part.content_type
        if mime_type(part.content_type) == "application/x-www-form-urlencoded":
            headers["content-type"] = "application/octet-stream"  # text that is no form: TorchServe would lose it
    return {"headers": headers, "content": part.value}


def answer_of(status: int, body: bytes, headers: Mapping[str, str], *, piece: bool = False) -> Answer:
    """Return the answer; what the handler returned is not said, so JSON is JSON, other UTF-8 text and the rest bytes.

    Args:
        status: As the handler set it.
        body: The handler's answer as TorchServe encoded it.
        headers: As TorchServe sent them.
        piece: Whether it is a piece of an answer: it is then text or bytes.
    """
    kept = {name: value for name, value in headers.items() if name.lower() not in _SERVERS_OWN}
    return Answer(status, body, _kind(body, piece=piece), headers.get("content-type"), kept)


def _is_parsed(part: Part) -> bool:
    mime = mime_type(part.content_type)
    return mime == "application/json" or mime.startswith("text")


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
