"""HTTP/1.1 connections of the sidecar: uvicorn's fast protocol, with limits on headers, which it has none of."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from marway.wire.problems import CONTENT_TYPE, Problem

__all__ = ["BoundedConnection"]

_HEADER_BYTES_MAX: Final = 64 * 1024
_HEADERS_MAX: Final = 100
_HEADERS_S: Final = 10.0
"""How long a connection may take from its first byte, or from its opening, to the end of a request's headers."""


class BoundedConnection(HttpToolsProtocol):
    """Refuses headers that are too many, too long or too slow, and answers bad requests with problems."""

    _header_bytes = 0
    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_headers()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._expect_headers()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._bounded(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._bounded(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > _HEADERS_MAX:
            raise httptools.HttpParserError(f"more than {_HEADERS_MAX} headers")

    def on_headers_complete(self) -> None:
        self._have_headers()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        too_long = self._header_bytes > _HEADER_BYTES_MAX or len(self.headers or ()) > _HEADERS_MAX
        if too_long:
            self._refuse(
                431,
                "Request Header Fields Too Large",
                "headers_too_large",
                f"at most {_HEADERS_MAX} headers and {_HEADER_BYTES_MAX} bytes of them are accepted",
            )
        else:
            self._refuse(400, "Bad Request", "invalid_request", msg)

    def _bounded(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _HEADER_BYTES_MAX:
            raise httptools.HttpParserError("headers too large")

    def _expect_headers(self) -> None:
        if self._too_slow is None:
            self._too_slow = self.loop.call_later(_HEADERS_S, self._headers_late)

    def _have_headers(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _headers_late(self) -> None:
        self._too_slow = None
        if not self.transport.is_closing():
            self._refuse(
                408, "Request Timeout", "headers_late", f"the headers had not come within {_HEADERS_S:g} seconds"
            )

    def _refuse(self, status: int, reason: str, code: str, detail: str) -> None:
        body = Problem(title=reason, status=status, detail=detail, code=code).body()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, reason.encode(), CONTENT_TYPE.encode(), len(body), body)
        )
        self.transport.close()
