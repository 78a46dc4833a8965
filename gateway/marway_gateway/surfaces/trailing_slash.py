"""Paths with a slash at the end: the same as without, in the protocols whose own servers or clients write them so."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from marway_gateway.http.requests import FastPathApp

__all__ = ["add_trailing_slash"]


class _Shortened:
    """ASGI app that serves a request as its path without the slash."""

    def __init__(self, served: ASGIApp) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["path"][:-1]
        if scope["path"].endswith("/"):
            raise HTTPException(404)  # two of them name nothing
        await self._served(scope, receive, send)


def add_trailing_slash(app: FastPathApp, *prefixes: str) -> None:
    """Have all that lies at and under ``prefixes`` served with a slash at the end too, behind all other routes."""
    shortened = _Shortened(app.router)
    for prefix in prefixes:
        app.router.routes.extend(Route(prefix + path, shortened) for path in ("/", "/{rest:path}/"))
