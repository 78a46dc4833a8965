"""Reads the requests on one of the sidecar's connections: what is no HTTP/1.1 that can be served is refused here.

uvicorn's fast protocol bounds neither number nor size of headers, and llhttp leaves some of RFC 9112 to servers:
`marway.wire.http1`.
"""

from __future__ import annotations

from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from marway.wire.headers import OUTCOME, Outcome
from marway.wire.http1 import FIELDS_BYTES_MAX, Fault, fault_of, feed, target_of
from marway.wire.problems import CONTENT_TYPE, Problem

__all__ = ["RequestReader"]

_HEADERS_MAX: Final = 100
_LINGER_S: Final = 1.0
_REFUSED: Final = f"{OUTCOME}: {Outcome.REFUSED}\r\n".encode()
"""Tells a gateway that it is the request's fault, and not the pod's."""


class RequestReader(HttpToolsProtocol):
    """Refuses headers that are too many or too long, and what could be read in two ways."""

    _in_headers = True
    """Whether the head of a request comes."""
    _refused = False
    """Whether no further request is read."""
    _header_bytes = 0
    _fault: Fault | None = None

    def takes_upgrade(self) -> bool:
        """Return whether the request that is being read gets the protocol that it asks for."""
        return False

    def upgraded(self, came: bytes) -> None:
        """Go on in another protocol, of which ``came`` is the beginning."""

    def reads_on(self) -> bool:
        """Return whether further requests can come."""
        return not (self._refused or self.transport.is_closing())

    def parse(self, data: bytes) -> None:
        """Read what came."""
        try:
            rest = feed(self, data)
        except httptools.HttpParserError:
            self.send_400_response("this is no HTTP/1.1 request")
        else:
            if rest is not None:
                self.upgraded(rest)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._in_headers = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        if self._header_bytes > FIELDS_BYTES_MAX:
            raise httptools.HttpParserError("headers too large")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Do what uvicorn does, in the same call: it is made more often than any other."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > FIELDS_BYTES_MAX:
            raise httptools.HttpParserError("headers too large")
        if not self._in_headers:
            return  # fields behind a body are not merged into its head (RFC 9110 §6.5.1)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers = self.headers
        headers.append((name, value))
        if len(headers) > _HEADERS_MAX:
            raise httptools.HttpParserError(f"more than {_HEADERS_MAX} headers")

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        self._fault = fault_of(self.parser.get_method(), version, self.headers)
        if self._fault is not None:
            raise httptools.HttpParserError(self._fault.detail)
        self._in_headers = False
        if self.parser.should_upgrade():
            return  # to frames; or it comes again, as if it did not ask: `feed` sees to that
        target = target_of(self.url)
        if target.host is not None:  # an absolute target; the header does not count (RFC 9112 §3.2.2)
            self.headers[:] = [each for each in self.headers if each[0] != b"host"]
            self.headers.append((b"host", target.host))
            self.url = b"%b?%b" % (target.raw_path, target.query) if target.query else target.raw_path
        if version != "1.1":
            self.expect_100_continue = False
        super().on_headers_complete()
        self.scope["path"] = target.path  # to uvicorn, a slash that is part of a segment is one between two

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._fault is not None:
            self.refuse(self._fault)
        elif self._header_bytes > FIELDS_BYTES_MAX or len(self.headers or ()) > _HEADERS_MAX:
            detail = f"at most {_HEADERS_MAX} headers and {FIELDS_BYTES_MAX} bytes of them are accepted"
            self.refuse(Fault(431, "Request Header Fields Too Large", "headers_too_large", detail))
        else:
            self.refuse(Fault(400, "Bad Request", "invalid_request", msg))

    def _end_after_earlier(self) -> bool:
        """Close without a word on the request that is being read where an answer is due before, or has begun.

        Answers come in the order of requests (RFC 9112 §9.3.2): any other would be taken for the answer to an earlier
        one. Return whether that was so.
        """
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        if cycle.more_body and not self._in_headers:
            if cycle.response_started:
                self.transport.abort()
                return True
            if not self.pipeline:
                return False  # it is this request that is wrong
            self.pipeline.popleft()
        else:
            cycle.keep_alive = False  # it says so to its client
        self._refused = True  # what comes is not read any more; `on_response_complete` closes
        return True

    def refuse(self, fault: Fault) -> None:
        """Answer for the request that is being read, and close.

        What comes is still read for a while: it would make the kernel drop the answer (RFC 9112 §9.6).
        """
        if self._end_after_earlier():
            return
        self._refused = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        body = Problem(title=fault.reason, status=fault.status, detail=fault.detail, code=fault.code).body()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (fault.status, fault.reason.encode(), CONTENT_TYPE.encode(), len(body), _REFUSED, body)
        )
        if self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.abort)
        else:
            self.transport.close()
