"""FastAPI with a short way to the predict routes.

FastAPI documents them like all others, and would serve them; requests reach the same handler past its router and its
middleware, which cost a small prediction more than all else in the sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from marway.wire.headers import Outcome
from marway.wire.paths import SegmentRoutes
from marway.wire.request import read_ids
from marway_http.eager import in_task
from marway_http.hosts import HostGuard
from marway_sidecar.api.call import Call
from marway_sidecar.api.channel import Channel
from marway_sidecar.api.http import problem_response

__all__ = ["FastHandler", "FastPathApp"]

_FOUND_MAX: Final = 1024  # paths, most of them of few models


class FastHandler(Protocol):
    """An ASGI app that may take a request without a task."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

    def serve_now(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> bool:
        """Begin to serve a request whose body is here, and return True; False leaves it to the call, as if unseen."""

    def begin(self, call: Call, body: bytes) -> bool:
        """Do the same for a request that came in another way than ASGI's."""


class FastPathApp(FastAPI):
    """An app whose `add_fast` routes are served by their handlers and nothing else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._routes: SegmentRoutes[FastHandler] = SegmentRoutes()
        self._guard: HostGuard | None = None
        self._found: dict[tuple[str, str], tuple[FastHandler, dict[str, str]]] = {}

    def add_fast(self, method: str, path: str, handler: FastHandler) -> None:
        """Have a route served on the short way; the router has it in any case."""
        self._routes.add(method, path, handler)

    def admit_by(self, guard: HostGuard) -> None:
        """Refuse what ``guard`` does not admit."""
        self._guard = guard

    def guard(self, headers: Iterable[tuple[bytes, bytes]]) -> Response | None:
        """Return the refusal of an HTTP request with these headers, or None where it may ask."""
        error = None if self._guard is None else self._guard(headers)
        if error is None:
            return None
        said = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        return problem_response(error, request_id=read_ids(said.get).request_id, outcome=Outcome.REFUSED)

    def serve_now(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> bool:
        """Begin to serve a request whose body is here, if its handler can do so without a task."""
        found = self._handler(scope["method"], scope["path"]) if not scope["root_path"] else None
        if found is None:
            return False
        handler, scope["path_params"] = found
        return handler.serve_now(scope, receive, send, body)

    def begin(self, path: str, headers: Mapping[str, str], client: str, channel: Channel, body: bytes) -> bool:
        """Begin a prediction that came over frames, if its handler can do so without a task."""
        found = self._handler("POST", path)
        if found is None:
            return False
        handler, named = found
        return handler.begin(Call(headers, named, client, channel), body)

    def _handler(self, method: str, path: str) -> tuple[FastHandler, dict[str, str]] | None:
        asked = method, path
        found = self._found.get(asked)
        if found is None:
            found = self._routes.find(method, path)
            if found is not None:
                if len(self._found) >= _FOUND_MAX:
                    self._found.clear()
                self._found[asked] = found
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await in_task()
        refusal = self.guard(scope["headers"]) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["type"] == "http" and not scope.get("root_path"):
            found = self._routes.find(scope["method"], scope["path"])
            if found is not None:
                handler, scope["path_params"] = found
                await handler(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
