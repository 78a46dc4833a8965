"""Requests on one client connection: uvicorn's fast protocol, which makes less of each.

A request that came whole is first shown to the application (`begin`), which may take it without a task; all others,
and those that it leaves, are called as ASGI has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn._types import HTTPScope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from marway.wire.http1 import FIELDS_BYTES_MAX, Fault, fault_of, feed, target_of
from marway_gateway.http.cycle import Cycle

__all__ = ["HttpConnection"]

_WHOLE_BYTES: Final = 64 * 1024
"""The largest body that may be begun without a task: what uvicorn holds before it reads no further."""
_PATIENCE_S: Final = 0.02
"""How long a small body may come behind its head for its request still to be begun without a task."""


class HttpConnection(HttpToolsProtocol):
    """Makes requests and starts them, with a task or without."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._fault: Fault | None = None
        """What is wrong with the request that came last."""
        self._in_head = True
        """Whether headers belong to the head of a request: those behind a chunked body do not."""
        self._trailer_bytes = 0
        self._begin: Callable[[Cycle], bool] | None = getattr(self.app, "begin", None)
        self._held: Cycle | None = None
        """The request to start once all that came is parsed, and its small body has come."""
        self._patience: asyncio.TimerHandle | None = None
        self._in_hand: Cycle | None = None
        """The last request that was begun without a task."""

    @property
    def leaving(self) -> bool:
        """Whether each answer should be the connection's last."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._start_held()  # for it to be reported
        self._leave()

    def shutdown(self) -> None:
        super().shutdown()
        self._leave()

    def data_received(self, data: bytes) -> None:
        try:
            feed(self, data)
        except httptools.HttpParserError:
            self.send_400_response("this is no HTTP/1.1 request" if self._fault is None else self._fault.detail)
        if self._held is None:
            return
        if self._held.more_body and not self._held.waiting_for_100_continue and _is_small(self.headers):
            # Python's clients write head and body apart, and the body is on its way.
            if self._patience is None:
                self._patience = self.loop.call_later(_PATIENCE_S, self._start_held)
        else:
            self._start_held()

    def _start_held(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        cycle, self._held = self._held, None
        if cycle is not None:
            self._start_asgi_task(cycle, self.app)

    def takes_upgrade(self) -> bool:
        """Return False: no other protocol is spoken here."""
        return False

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = True
        self._trailer_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)
            return
        # Behind a body: nobody asked for such fields, and they are not merged into the head (RFC 9110 §6.5.1).
        self._trailer_bytes += len(name) + len(value) + 4
        if self._trailer_bytes > FIELDS_BYTES_MAX:
            detail = f"at most {FIELDS_BYTES_MAX} bytes of fields are accepted behind a body"
            self._fault = Fault(431, "Request Header Fields Too Large", "headers_too_large", detail)
            raise httptools.HttpParserError(detail)

    def on_headers_complete(self) -> None:
        url, parser = self.url, self.parser
        self._in_head = False
        method, version = parser.get_method(), parser.get_http_version()
        self._fault = fault_of(method, version, self.headers)
        if self._fault is not None:
            raise httptools.HttpParserError(self._fault.detail)
        if parser.should_upgrade():
            return  # it comes again, as if it did not ask: `feed` sees to that
        latest: RequestResponseCycle | None = self.cycle
        path, raw_path, query, host = target_of(url)
        if host is not None:  # an absolute target; the header does not count (RFC 9112 §3.2.2)
            self.headers[:] = [each for each in self.headers if each[0] != b"host"]
            self.headers.append((b"host", host))
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        keeps = version == "1.1" and parser.should_keep_alive() and not self.leaving
        expects = self.expect_100_continue and version == "1.1"
        cycle = self.cycle = Cycle(self, scope, keep_alive=keeps, expects=expects)
        if latest is None or latest.response_complete:
            self._held = cycle  # what came may be all of it: that is known when it is parsed
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        assert isinstance(cycle, Cycle)
        if not self._begun(cycle):
            self.start(cycle, app)

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Call ``app`` for a request, in a task."""
        super()._start_asgi_task(cycle, app)

    def _begun(self, cycle: Cycle) -> bool:
        """Have a request begun without a task, where it came whole and the app can do that."""
        if (
            self._begin is None
            or cycle.more_body
            or cycle.waiting_for_100_continue
            or cycle.disconnected
            or self.leaving
            or len(cycle.body) > _WHOLE_BYTES
        ):
            return False
        try:
            begun = self._begin(cycle)
        except Exception:
            return False  # nothing was begun; in a task it fails as well, and is reported
        self._in_hand = cycle if begun else None
        return begun

    def _leave(self) -> None:
        """Have what goes on without a task go on in one, which can be cancelled and told that the client has left."""
        cycle, self._in_hand = self._in_hand, None
        if cycle is not None and cycle.left is not None:
            cycle.left()


def _is_small(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether headers announce a body that is small enough to be waited for."""
    length = next((value for name, value in headers if name == b"content-length"), b"")
    return length.isdigit() and int(length) <= _WHOLE_BYTES
