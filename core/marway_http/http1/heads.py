"""Heads of HTTP/1.1 messages: what is wrong with a request's (RFC 9112, RFC 9110), and how an answer's goes out.

llhttp refuses most framing that two parsers could read in two ways. Left to a server are the `Host` header, transfer
codings beside `chunked`, versions, fields behind a chunked body, slashes in a path's segments, and what becomes of a
request whose `Upgrade` is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools

from marway.wire.problems import CONTENT_TYPE, Problem
from marway_http.channel import NO_BODY, HeaderBlock, Headers, header_block

__all__ = [
    "FIELDS_BYTES_MAX",
    "STATUS_LINES",
    "Target",
    "block_of",
    "fault_of",
    "framed",
    "is_host",
    "known_target",
    "refusal",
    "refused",
    "target_of",
    "without_cors",
]

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?")
"""`uri-host [":" port]` of RFC 9110 §7.2; it may be empty where the target has no authority."""
_VERSIONS: Final = ("1.1", "1.0")
FIELDS_BYTES_MAX: Final = 64 * 1024
"""The most that the fields of a head may have, and those behind a chunked body."""
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
_CORS: Final = frozenset(
    {b"access-control-allow-credentials", b"access-control-allow-origin", b"access-control-expose-headers"}
)


class Target(NamedTuple):
    """A request's target.

    Attributes:
        path: Percent-decoded, save a slash within a segment, which stays `%2F`: it separates no segments.
        raw_path: As it was written.
        query: What is behind the question mark.
        host: What an absolute target names, which counts in the place of the `Host` header; None for others.
    """

    path: str
    raw_path: bytes
    query: bytes
    host: bytes | None


def refused(status: int, code: str, detail: str, title: str = "") -> Problem:
    """Return what a request is answered for which its connection is closed; without a title, the status has one."""
    return Problem(title=title or HTTPStatus(status).phrase, status=status, detail=detail, code=code)


@lru_cache(maxsize=256)
def is_host(value: bytes) -> bool:
    """Return whether this is what a `Host` header may say."""
    return _HOST.fullmatch(value) is not None


def fault_of(method: bytes, version: str, headers: Headers) -> Problem | None:
    """Return what is wrong with a request's head, or None.

    Args:
        method: HTTP method.
        version: `1.1` or `1.0`.
        headers: Names in lower case.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return refused(400, "invalid_request", "there is more than one Host header")
    if hosts and not is_host(hosts[0]):
        return refused(400, "invalid_request", "the Host header is not a host")
    if not hosts and version == "1.1":
        return refused(400, "invalid_request", "the Host header is missing")
    if version not in _VERSIONS:
        return refused(505, "version_not_supported", "HTTP/1.1 is spoken here")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and version != "1.1":
        return refused(400, "invalid_request", "HTTP/1.0 has no Transfer-Encoding")
    fault = _fault_of_codings(codings) if codings else None
    if fault is None and method == b"CONNECT":
        return refused(501, "not_implemented", "this server is no proxy: CONNECT is not served")
    return fault


def _fault_of_codings(values: list[bytes]) -> Problem | None:
    codings = [each.strip(b" \t").lower() for value in values for each in value.split(b",")]
    if codings == [b"chunked"]:
        return None
    others = [each for each in codings if each != b"chunked"]
    if not others or b"" in others:
        return refused(400, "invalid_request", "the Transfer-Encoding is not one that can be")
    named = others[0][:40].decode("latin-1")
    detail = f"the transfer coding {named!r} is not known here: send the body as it is, or chunked"
    return refused(501, "not_implemented", detail)


def target_of(url: bytes) -> Target:
    """Return what a request's target says.

    Raises:
        httptools.HttpParserError: It is none.
    """
    parsed: Any = httptools.parse_url(url)  # its stubs promise a host, which most targets have not
    raw = parsed.path or b"/"
    path = raw.decode("ascii")
    if "%" in path:
        path = "/".join(unquote(segment).replace("/", "%2F") for segment in path.split("/"))
    host = parsed.host
    if host is not None:
        host = b"[%b]" % host if b":" in host else host
        host = host if parsed.port is None else b"%b:%d" % (host, parsed.port)
    return Target(path, raw, parsed.query or b"", host)


known_target = lru_cache(maxsize=1024)(target_of)


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
    sized = closes = False
    lowered = [(name.lower(), value) for name, value in headers]
    for name, value in lowered:
        if name == b"content-length" and not sized:
            length, sized = int(value), True
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            length, sized = None, True
        elif name == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
            closes = True
    if not sized and status not in NO_BODY and not bodiless:
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
