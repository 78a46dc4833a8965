"""Headers of answers as they go out: those that a connection adds, those that ASGI gives, and those of refusals."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from marway.wire.problems import CONTENT_TYPE, Problem
from marway_http.channel import NO_BODY, HeaderBlock, Headers, header_block

__all__ = ["STATUS_LINES", "block_of", "framed", "refusal", "without_cors"]

STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
_CORS: Final = frozenset(
    {b"access-control-allow-credentials", b"access-control-allow-origin", b"access-control-expose-headers"}
)


@lru_cache(maxsize=64)
def block_of(default: Headers, cors: Headers) -> HeaderBlock:
    """Return a second's date and what a page's origin has; few servers run in one process, few pages ask."""
    return header_block((*default, *cors))


def without_cors(headers: HeaderBlock) -> HeaderBlock:
    """Return headers without those that say who may read the answer."""
    if b"access-control-" not in headers.text.lower():
        return headers
    lines = headers.text.splitlines(keepends=True)
    left = [each for each in lines if each.partition(b":")[0].lower() not in _CORS]
    return HeaderBlock(b"".join(left), headers.number - (len(lines) - len(left)))


def framed(
    status: int, headers: Iterable[tuple[bytes, bytes]], *, bodiless: bool
) -> tuple[HeaderBlock, int | None, bool]:
    """Return headers as ASGI gives them, with what says where the answer ends.

    Args:
        status: From 200 to 599.
        headers: All but the connection's own.
        bodiless: Whether it answers HEAD.

    Returns:
        The headers; bytes of the body that they promise, None when it is chunked; whether they end the connection.
    """
    length: int | None = 0
    said = closes = False
    lowered = [(name.lower(), value) for name, value in headers]
    for name, value in lowered:
        if name == b"content-length" and not said:
            length, said = int(value), True
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            length, said = None, True
        elif name == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
            closes = True
    if not said and status not in NO_BODY and not bodiless:
        length = None
        lowered.append((b"transfer-encoding", b"chunked"))
    return header_block(lowered), length, closes


def refusal(problem: Problem, headers: bytes) -> bytes:
    """Return the whole answer to what cannot be served, which ends its connection.

    Args:
        problem: Why.
        headers: Further lines, each with its end.
    """
    body = problem.body()
    return b"%b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        *(STATUS_LINES[problem.status], CONTENT_TYPE.encode(), len(body)),
        *(headers, body),
    )
