"""What the standard protocols ask of a model over HTTP beside predictions, and how they spell its paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from marway.refs import check_label
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import Label, Model, Selector

__all__ = ["add_reference_routes", "add_trailing_slash"]


def add_reference_routes(
    router: APIRouter,
    told: Callable[[str, str | None], Awaitable[Any]],
    routes: Iterable[tuple[str, str, str]],
    **documented: Any,
) -> None:
    """Add `GET` routes that are answered for a model, and a version or label.

    Args:
        router: Where to.
        told: Gives the answer for a model and a version or label, or None.
        routes: Path, name and summary of each. Paths have `{model}`, and perhaps `{selector}` or `{label}`.
        documented: More that FastAPI's routes take.
    """

    async def of_model(model: Model) -> Any:
        return await told(model, None)

    async def of_version(model: Model, selector: Selector) -> Any:
        return await told(model, selector)

    async def of_label(model: Model, label: Label) -> Any:
        return await told(model, check_label(label))

    for path, name, summary in routes:
        endpoint = of_version if "{selector}" in path else of_label if "{label}" in path else of_model
        router.add_api_route(path, endpoint, name=name, summary=summary, **documented)


class _Shortened:
    """ASGI app that serves a request as its path without the slash."""

    def __init__(self, served: ASGIApp) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["path"][:-1]
        if scope["path"].endswith("/"):
            raise HTTPException(404)  # two of them name nothing
        await self._served(scope, receive, send)


def add_trailing_slash(app: FastPathApp, prefix: str) -> None:
    """Have all that lies at and under ``prefix`` served with a slash at the end too, behind all other routes."""
    shortened = _Shortened(app.router)
    app.router.routes.extend(Route(prefix + path, shortened) for path in ("/", "/{rest:path}/"))
