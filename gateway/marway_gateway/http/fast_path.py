"""FastAPI with a short way to the routes that carry predictions.

FastAPI documents them like all others, and would serve them; requests reach the same handlers past its router and its
layers of middleware, which cost a small prediction more than all else in the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from marway.wire.paths import SegmentRoutes
from marway_gateway.http.sync_request import Exchange, FastApp
from marway_http.eager import in_task

__all__ = ["FastPathApp"]

_HANDLER: Final = "marway.handler"
_FOUND_MAX: Final = 1024  # paths, most of them of few models


class FastPathApp(FastAPI):
    """An app whose `add_fast` routes are served by the layers that `fast_layers` gives, and nothing else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._routes: SegmentRoutes[ASGIApp] = SegmentRoutes()
        self._fast: FastApp = _Handlers()
        self._found: dict[tuple[str, str], tuple[ASGIApp, dict[str, str]]] = {}

    def fast_layer(self, layer: Callable[..., FastApp], **options: Any) -> None:
        """Add middleware around every route: around the short way's and, as `add_middleware` does, all others."""
        self.add_middleware(layer, **options)
        self._fast = layer(self._fast, **options)

    def add_fast(self, method: str, path: str, handler: ASGIApp) -> None:
        """Have a route served on the short way where its path allows that; the router has it in any case."""
        self._routes.add(method, path, handler)

    def begin(self, exchange: Exchange) -> bool:
        """Begin a request that came whole, if its handler and all layers can do that without a task."""
        scope = exchange.scope
        asked = scope["method"], scope["path"]
        found = self._found.get(asked)
        if found is None:
            found = self._routes.find(*asked)
            if found is None or scope["root_path"]:
                return False
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            self._found[asked] = found
        scope[_HANDLER], scope["path_params"] = found
        return self._fast.begin(exchange)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await in_task()
        if scope["type"] == "http" and not scope.get("root_path"):
            found = self._routes.find(scope["method"], scope["path"])
            if found is not None:
                scope[_HANDLER], scope["path_params"] = found
                await self._fast(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class _Handlers:
    """The innermost app of the short way: the handler that was found."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler: ASGIApp = scope[_HANDLER]
        await handler(scope, receive, send)

    def begin(self, exchange: Exchange) -> bool:
        begin: Callable[[Exchange], bool] | None = getattr(exchange.scope[_HANDLER], "begin", None)
        return begin is not None and begin(exchange)
