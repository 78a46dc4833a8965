"""Paths of TorchServe's inference API beside those that most clients use.

A slash at the end; what stands behind a version, which handlers find as `url_path`; GET, for handlers that need no
input; `/models/{model}/invoke` and `/invocations?model_name={model}`, as SageMaker's containers have them; and the
description of the API, which is this gateway's own. The document of the API leaves these paths out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from marway.errors import InvalidRequest
from marway_gateway.http.requests import FastPathApp

__all__ = ["METHODS", "add_other_paths"]

METHODS: Final = ("GET", "POST", "PUT")
"""TorchServe takes any method for a prediction; these are the ones that mean something."""


class _Read:
    """ASGI app that reads model, version and what stands behind them from a request before it is served.

    Args:
        predict: Serves it.
        read: Gives the path's parameters.
    """

    def __init__(self, predict: ASGIApp, read: Callable[[Scope], Mapping[str, str]]) -> None:
        self._predict = predict
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_params"] = self._read(scope)
        await self._predict(scope, receive, send)


def add_other_paths(app: FastPathApp, predict: ASGIApp, explain: ASGIApp) -> None:
    """Add the routes to the public app.

    Args:
        app: Where to.
        predict: Serves predictions, of a path's `model`, `selector` and `url_path`.
        explain: Serves explanations.
    """
    routes = app.router.routes
    for path, handler in (("/predictions", predict), ("/explanations", explain)):
        routes.append(Route(path + "/{rest:path}", _Read(handler, _from_path), methods=METHODS))
    invoked = _Read(predict, _from_invoke)
    routes += [Route("/models/{model}/invoke" + end, invoked, methods=METHODS) for end in ("", "/")]
    routes.append(Route("/invocations", _Read(predict, _from_query), methods=METHODS))

    async def api_description(_: Request) -> Response:
        return JSONResponse(app.openapi())

    routes.append(Route("/", api_description, methods=["OPTIONS"]))
    routes.append(Route("/api-description", api_description, methods=["GET", "OPTIONS"]))


def _from_path(scope: Scope) -> dict[str, str]:
    """Return what `/predictions/{model}[/{version}[/…]][/]` names."""
    model, _, behind = scope["path"].split("/", 2)[2].rstrip("/").partition("/")
    if not model:
        raise HTTPException(404)
    selector, _, url_path = behind.partition("/")
    return {"model": model, **({"selector": selector} if behind else {}), "url_path": url_path}


def _from_invoke(scope: Scope) -> dict[str, str]:
    model: str = scope["path_params"]["model"]
    return {"model": model}


def _from_query(scope: Scope) -> dict[str, str]:
    names = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100).get("model_name", [])
    if not names:
        raise InvalidRequest("the query parameter model_name is missing: POST /invocations?model_name=MODEL")
    return {"model": names[-1]}
