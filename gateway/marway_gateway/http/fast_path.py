"""FastAPI with a short way to the routes that carry predictions.

FastAPI documents them like all others, and would serve them; requests reach the same handlers past its router and its
layers of middleware, which cost a small prediction more than all else in the gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from marway.wire.paths import SegmentRoutes
from marway_http.eager import in_task

__all__ = ["FastPathApp"]

_HANDLER: Final = "marway.handler"
_FOUND_MAX: Final = 1024  # paths, most of them of few models


class FastPathApp(FastAPI):
    """An app whose `add_fast` routes are served by the layers that `fast_layer` adds, and nothing else.

    Requests of these routes are served without a task (`marway_http.eager`); all others get one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._routes: SegmentRoutes[ASGIApp] = SegmentRoutes()
        self._fast: ASGIApp = _handle
        self._found: dict[tuple[str, str], tuple[ASGIApp, dict[str, str]]] = {}

    def fast_layer(self, layer: Callable[..., ASGIApp], **options: Any) -> None:
        """Add middleware around every route: around the short way's and, as `add_middleware` does, all others."""
        self.add_middleware(layer, **options)
        self._fast = layer(self._fast, **options)

    def add_fast(self, method: str, path: str, handler: ASGIApp) -> None:
        """Have a route served on the short way where its path allows that; the router has it in any case."""
        self._routes.add(method, path, handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            asked = scope["method"], scope["path"]
            found = self._found.get(asked) or self._find(asked)
            if found is not None:
                scope[_HANDLER], scope["path_params"] = found
                await self._fast(scope, receive, send)
                return
        await in_task()
        await super().__call__(scope, receive, send)

    def _find(self, asked: tuple[str, str]) -> tuple[ASGIApp, dict[str, str]] | None:
        found = self._routes.find(*asked)
        if found is not None:
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            self._found[asked] = found
        return found


def _handle(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """The innermost app of the short way: the handler that was found."""
    handler: ASGIApp = scope[_HANDLER]
    return handler(scope, receive, send)
