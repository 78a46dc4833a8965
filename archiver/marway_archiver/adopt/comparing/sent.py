"""What is sent to an old server, and what it answers; and what of an entry of a file is that."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from marway.answers.golden import is_json
from marway.errors import InvalidInput
from marway_archiver.adopt.comparing.routes import Route

__all__ = ["OldAnswer", "OldRequest", "body_of", "decoded", "headers_given", "headers_sent", "host_named"]

_JSON, _TEXT = "application/json", "text/plain"
_NOT_SENT: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "content-type", "expect", "forwarded", "host"),
        *("keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
    }
)
"""Headers of a connection or of the proxies on its way, and those that are written anew."""


@dataclass(frozen=True, slots=True)
class OldAnswer:
    """What a server answered: status, content type and body; after how many seconds, where that is known."""

    status: int
    content_type: str | None
    body: bytes
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class OldRequest:
    """A request for a prediction, as the old server is sent it.

    Attributes:
        where: File and line, or entry, for messages.
        route: Where it goes.
        body: Its bytes.
        content_type: What they are, or None.
        headers: More headers, by lower-case name.
        answer: What the old server answered then, where the file has it.
        host: The host that the client named, where the file has it.
    """

    where: str
    route: Route
    body: bytes
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: OldAnswer | None = None
    host: str | None = None


def headers_given(where: str, given: Any) -> dict[str, str]:
    """Return the headers of an entry by their lower-case names; those of HTTP/2 itself are none.

    Raises:
        InvalidInput: They are no object.
    """
    if not isinstance(given, dict):
        raise InvalidInput(f"{where}: headers is an object of texts")
    return {str(name).lower(): str(value) for name, value in given.items() if not str(name).startswith(":")}


def headers_sent(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those that are sent again."""
    return {name: value for name, value in headers.items() if name not in _NOT_SENT and value.isprintable()}


def host_named(url: str | None, headers: Mapping[str, str]) -> str | None:
    """Return the host that a client named, by its header or its URL."""
    if "host" in headers:
        return headers["host"]
    return url.split("/")[2] if url is not None and "://" in url else None


def body_of(value: Any, kind: str | None, *, text: bool) -> tuple[bytes, str]:
    """Return a body and what it is; a text that no content type is said of may be JSON, unless it is an example's."""
    if isinstance(value, str) and not (text and is_json(kind)):
        if kind is None and not text and value.lstrip()[:1] in ("{", "["):
            try:
                json.loads(value)
            except (ValueError, RecursionError):
                pass
            else:
                kind = _JSON
        return value.encode("utf-8", "surrogatepass"), kind or _TEXT
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"), kind or _JSON


def decoded(where: str, text: str) -> bytes:
    """Return the bytes of a base64 text.

    Raises:
        InvalidInput: It is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput(f"{where}: is not base64: {exc}") from exc
