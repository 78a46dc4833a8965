"""The head of an answer as it goes out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from marway.wire.problems import CONTENT_TYPE, Problem
from marway_http.channel import NO_BODY, HeaderBlock, Headers, header_block
from marway_http.http1.faults import Fault

__all__ = ["BAD_HEADER", "STATUS_LINES", "Head", "OwnHeaders", "block_of", "head_of", "refusal", "without_cors"]

OwnHeaders = tuple[Headers, Headers | None]
"""A connection's headers, and those that say who may read the answer; None leaves that to the handler."""
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
BAD_HEADER: Final = "a header of the answer has a control character in it"
"""A line break in a header would begin another one, or a second answer."""
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_CORS: Final = frozenset(
    {b"access-control-allow-credentials", b"access-control-allow-origin", b"access-control-expose-headers"}
)


class Head(NamedTuple):
    """The head of an answer.

    Attributes:
        text: As it goes out.
        length: Bytes of the body that it promises; None when the body is chunked.
        closes: Whether it ends the connection.
    """

    text: bytes
    length: int | None
    closes: bool


def head_of(
    status: int,
    own: OwnHeaders,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    closes: bool,
    head: bool,
) -> Head:
    """Return the head of an answer with the headers that ASGI gives.

    Args:
        status: From 200 to 599.
        own: Those that answers have anyhow.
        headers: All others.
        closes: Whether the connection ends with it.
        head: Whether it answers HEAD.

    Raises:
        RuntimeError: A header cannot be sent.
    """
    length: int | None = 0
    framed = says = False
    default, cors = own
    if cors is not None:
        headers = (*cors, *(each for each in headers if each[0].lower() not in _CORS))
    lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
    for name, value in (*default, *headers):
        name = name.lower()
        if name in _FRAMING:
            if name == b"content-length" and not framed:
                length, framed = int(value), True
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                length, framed = None, True
            elif name == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
                says = True
        lines.append(name + b": " + value)
    if closes and not says:
        lines.append(b"connection: close")
    if not framed and status not in NO_BODY and not head:
        length = None
        lines.append(b"transfer-encoding: chunked")
    lines.append(b"\r\n")
    text = b"\r\n".join(lines)
    if not text.count(b"\r") == text.count(b"\n") == len(lines) or b"\0" in text:
        raise RuntimeError(BAD_HEADER)
    return Head(text, length, closes or says)


def refusal(fault: Fault, headers: bytes) -> bytes:
    """Return the whole answer to what cannot be served, which ends its connection.

    Args:
        fault: What is wrong.
        headers: Further lines, each with its end.
    """
    title = fault.title or fault.reason
    body = Problem(title=title, status=fault.status, detail=fault.detail, code=fault.code).body()
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        *(fault.status, fault.reason.encode(), CONTENT_TYPE.encode(), len(body)),
        *(headers, body),
    )


@lru_cache(maxsize=64)
def block_of(own: OwnHeaders) -> HeaderBlock:
    """Return a connection's headers as they go out: few servers run in one process, few pages ask."""
    default, cors = own
    return header_block((*default, *(cors or ())))


def without_cors(headers: HeaderBlock) -> HeaderBlock:
    """Return headers without those that say who may read the answer."""
    if b"access-control-" not in headers.text.lower():
        return headers
    lines = headers.text.splitlines(keepends=True)
    left = [each for each in lines if each.partition(b":")[0].lower() not in _CORS]
    return HeaderBlock(b"".join(left), headers.number - (len(lines) - len(left)))
