"""Reads requests: the events of llhttp, and what llhttp leaves to servers (`marway_http.http1.heads`)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import httptools

from marway.wire.problems import Problem
from marway_http.channel import LARGE_BODY_BYTES
from marway_http.http1.heads import FIELDS_BYTES_MAX, fault_of, is_host, known_target, refused, target_of

if TYPE_CHECKING:
    from marway_http.http1.connection import HttpConnection

__all__ = ["BadRequest", "BodyPieces", "RequestReader"]

_HEADERS_MAX: Final = 100
_KNOWN_TARGET_BYTES: Final = 256
"""Targets up to here are taken apart once."""


class BadRequest(Exception):
    """What came is no request that can be served.

    Attributes:
        problem: What is wrong.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class BodyPieces:
    """What came of a body and was not taken yet, in the pieces that it came in: joining them copies it.

    Attributes:
        held: Its bytes.
    """

    __slots__ = ("_pieces", "held")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.held = 0

    def add(self, data: bytes) -> None:
        """Take in what came next."""
        if data:
            self._pieces.append(data)
            self.held += len(data)

    def take(self) -> bytes:
        """Return what has come: a large piece by itself, small ones joined; b"" when there is nothing."""
        if len(self._pieces) > 1 and len(self._pieces[0]) < LARGE_BODY_BYTES:
            piece = self.whole()
            self.drop()
            return piece
        piece = self._pieces.popleft() if self._pieces else b""
        self.held -= len(piece)
        return piece

    def whole(self) -> bytes:
        """Return all that has come, which stays here."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def drop(self) -> None:
        """Let go of all that is held."""
        self._pieces.clear()
        self.held = 0


class RequestReader:
    """Reads requests, one after the other.

    Args:
        connection: Told of them.

    Attributes:
        headers: Of the request that is being read; names in lower case.
    """

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._parser: Any = self._new_parser()
        self.headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._in_head = True
        """Whether fields belong to the head of a request: those behind a chunked body do not."""
        self._fields_bytes = 0
        self._expects = False
        self._came = 0
        self._left = 0
        """Bytes that are to come of a large body, which pass the parser by."""
        self._fault: Problem | None = None

    def feed(self, data: bytes) -> bytes | None:
        """Read what came.

        A request whose `Upgrade` is not taken is read as if it had none (RFC 9110 §7.8). httptools believes that
        nothing behind such a head is of this request: a body would be read as the next request. So its head is read
        again, without `Upgrade`, by a parser of its own, which goes on with what came behind it.

        Returns:
            What came of another protocol, where an upgrade to it is taken; None as long as this is HTTP.

        Raises:
            BadRequest: This is no HTTP that can be served. Nothing can be read any more.
        """
        if self._left:
            data = self._feed_large(data)
        while data:
            parser = self._parser
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
                method, version = parser.get_method(), parser.get_http_version()
                if version == "1.1" and self._connection.takes_upgrade(method, self._url, self.headers):
                    return rest
                lines = [b"%b %b HTTP/%b\r\n" % (method, self._url, version.encode())]
                lines += [b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade"]
                data = b"%b\r\n%b" % (b"".join(lines), rest)
                self._parser = self._new_parser()
            except httptools.HttpParserError as exc:
                fault = self._fault or refused(400, "invalid_request", "this is no HTTP/1.1 request")
                raise BadRequest(fault) from exc
            else:
                break
        return None

    def pass_large_body(self) -> bool:
        """Have what is to come of the body that is being read pass the parser by, if it is large and its length known.

        A parser copies each piece. Of such a body nothing has to be parsed: only its bytes are to be counted.
        """
        length = self._content_length()
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        if chunked or self._left or length <= max(LARGE_BODY_BYTES, self._came):
            return False
        self._left = length - self._came
        return True

    def has_small_body(self) -> bool:
        """Return whether the request that is being read has a body of a length that is known and not large."""
        return 0 < self._content_length() <= LARGE_BODY_BYTES

    def _content_length(self) -> int:
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    def close(self) -> None:
        """Let go of the parser, which has references to this."""
        self._parser = None

    def _feed_large(self, data: bytes) -> bytes:
        """Take in what came of a large body; return what came behind it."""
        rest = data[self._left :]
        data = data[: self._left] if rest else data
        self._left -= len(data)
        self._connection.body(data)
        if not self._left:
            self._parser = self._new_parser()  # the old one waits for the body
            self._connection.complete()
        return rest

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    # -- told by the parser --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self.headers = []
        self._in_head = True
        self._fields_bytes = self._came = 0
        self._expects = False
        self._connection.begun()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._fields_bytes += len(url)
        if self._fields_bytes > FIELDS_BYTES_MAX:
            self._too_long()

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self.headers
        self._fields_bytes += len(name) + len(value) + 4
        if self._fields_bytes > FIELDS_BYTES_MAX:
            self._too_long()
        if not self._in_head:
            return  # fields behind a body are not merged into its head (RFC 9110 §6.5.1)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True
        headers.append((name, value))
        if len(headers) > _HEADERS_MAX:
            self._too_long()

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self.headers
        method, version = parser.get_method(), parser.get_http_version()
        names = [name for name, _ in headers]  # as this is done for every request, the looking is left to lists
        usual = version == "1.1" and names.count(b"host") == 1 and is_host(headers[names.index(b"host")][1])
        if not usual or b"transfer-encoding" in names or method == b"CONNECT":
            self._fault = fault_of(method, version, headers)
            if self._fault is not None:
                raise httptools.HttpParserError(self._fault.detail)
        self._in_head = False
        self._fields_bytes = 0
        if parser.should_upgrade():
            return  # `feed` sees to that
        url = self._url
        target = known_target(url) if len(url) <= _KNOWN_TARGET_BYTES else target_of(url)
        if target.host is not None:  # an absolute target; the header does not count (RFC 9112 §3.2.2)
            headers[:] = [each for each in headers if each[0] != b"host"]
            headers.append((b"host", target.host))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": "http",
            "root_path": "",
            "path": target.path,
            "raw_path": target.raw_path,
            "query_string": target.query,
            "headers": headers,
        }
        new = version == "1.1"
        self._connection.head(scope, keeps=new and parser.should_keep_alive(), expects=new and self._expects)

    def on_body(self, body: bytes) -> None:
        self._came += len(body)
        self._connection.body(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_upgrade():
            self._connection.complete()

    def _too_long(self) -> None:
        detail = f"at most {_HEADERS_MAX} headers and {FIELDS_BYTES_MAX} bytes of them are accepted"
        if not self._in_head:
            detail = f"at most {FIELDS_BYTES_MAX} bytes of fields are accepted behind a body"
        self._fault = refused(431, "headers_too_large", detail)
        raise httptools.HttpParserError(detail)
