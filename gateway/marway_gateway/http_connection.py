"""Requests on one client connection: uvicorn's fast protocol, which makes less of each.

A request that came whole is first shown to the application (`begin`), which may take it without a task; all others,
and those that it leaves, are called as ASGI has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn._types import HTTPScope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from marway_gateway.http_cycle import Cycle

__all__ = ["HttpConnection"]

_WHOLE_BYTES: Final = 64 * 1024
"""The largest body that may be begun without a task: what uvicorn holds before it reads no further."""
_PATIENCE_S: Final = 0.02
"""How long a small body may come behind its head for its request still to be begun without a task."""
_KNOWN_BYTES: Final = 256
"""Request targets up to here are taken apart once."""


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
        super().data_received(data)
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

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        url, parser = self.url, self.parser
        latest: RequestResponseCycle | None = self.cycle
        version = parser.get_http_version()
        path, raw_path, query = _known_parts(url) if len(url) <= _KNOWN_BYTES else _parts(url)
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
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
        keeps = version != "1.0" and parser.should_keep_alive() and not self.leaving
        cycle = self.cycle = Cycle(self, scope, keep_alive=keeps, expects=self.expect_100_continue)
        if latest is None or latest.response_complete:
            self._held = cycle  # what came may be all of it: that is known when it is parsed
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

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


def _parts(url: bytes) -> tuple[str, bytes, bytes]:
    """Return the path of a request's target, the same as it was written, and the query."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


_known_parts = lru_cache(maxsize=1024)(_parts)
