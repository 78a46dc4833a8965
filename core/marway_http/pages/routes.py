"""What every port answers in the same way: what it is, how it does, its API's page, and HEAD wherever GET is.

The API page at `/docs` is Swagger UI over the port's own OpenAPI document, with nothing from another host. Everything
is found relative to the page, so that it works behind a proxy that puts a prefix before the port's paths. Script and
style are files, so that the page's Content-Security-Policy (W3C CSP Level 3) lets in nothing but those.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.resources import files
from typing import Final, Literal

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marway import __version__
from marway_http.pages.about import ABOUT_CONTENT, About, Link, about_answer, prefers_page

__all__ = ["API_PAGE_PATHS", "HeadAsGet", "Health", "HomePage", "add_process_routes", "expose", "with_head"]

API_PAGE_PATHS: Final = ("/docs", "/docs/page.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")
"""The page and what it is made of."""
_PACKAGE: Final = "fastapi_offline"
"""Carries Swagger UI; nothing else of it is used."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets style attributes from its script; scripts are from files alone. Pictures and sound of answers are
shown from memory (`blob:`)."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css?{version}">
</head>
<body>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> says the same.</noscript>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js?{version}"></script>
<script src="docs/page.js?{version}"></script>
</body>
</html>
"""
_SCRIPT: Final = """"use strict";
// No validator, which would send the document's address to another host. A token is kept until the page is left.
window.ui = SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  docExpansion: "list",
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_TYPES: Final = {"css": "text/css", "js": "text/javascript"}


HomePage = Callable[[Request], Awaitable[Response]]
"""Answers `/` where a page is preferred to JSON."""


class Health(BaseModel):
    """All is well; anything else is answered with a problem."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


async def expose(registry: CollectorRegistry) -> bytes:
    """Return the metrics of this process in Prometheus' text format."""
    return generate_latest(registry)


def add_process_routes(
    app: FastAPI,
    about: About,
    metrics_of: Callable[[], CollectorRegistry],
    *,
    exposed: Callable[[CollectorRegistry], Awaitable[bytes]] = expose,
    home: HomePage | None = None,
    more_links: Callable[[Request], tuple[Link, ...]] | None = None,
) -> None:
    """Add `/`, `/healthz`, `/metrics`, and the API's pages, which the document does not have.

    Args:
        app: Gets them.
        about: What `/` says.
        metrics_of: Gives the metrics; asked at each request, because they may exist only while the app runs.
        exposed: Writes them; one of several processes that answer for a port tells of all.
        home: The page at `/`; None has a plain one that says what the JSON says.
        more_links: Gives what `/` names beside `about`'s own, by who asks.
    """

    @app.get(
        "/",
        tags=["health"],
        summary="What this is, and where to look",
        response_class=Response,
        responses={200: {"model": About, "content": ABOUT_CONTENT}},
    )
    async def root(request: Request) -> Response:
        """JSON, or a page where `Accept` prefers that."""
        if home is not None and prefers_page(request.headers.get("accept", "")):
            return await home(request)
        links = about.links if more_links is None else (*about.links, *more_links(request))
        body, headers = about_answer(about.model_copy(update={"links": links}), request.headers.get("accept"))
        return Response(body, headers=headers)

    @app.get("/healthz", tags=["health"], summary="Does the process run?")
    async def healthz() -> Health:
        return Health()

    @app.get(
        "/metrics",
        tags=["health"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
        },
    )
    async def metrics() -> Response:
        return Response(await exposed(metrics_of()), media_type=CONTENT_TYPE_LATEST)

    app.router.routes += [Route(path, _api_page, methods=["GET"]) for path in API_PAGE_PATHS]


class HeadAsGet:
    """ASGI layer that has HEAD answered as GET is (RFC 9110 §9.3.2); an answer that streams ends with its head.

    Args:
        app: What answers; the server leaves the body of an answer to HEAD out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                ended = True  # from here on `receive` says that the client has left, which ends a stream
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app({**scope, "method": "GET"}, receive, send_head)


def with_head(allow: str) -> str:
    """Return an `Allow` header with HEAD, where it has GET."""
    methods = [method.strip() for method in allow.split(",")]
    return ", ".join([*methods, "HEAD"]) if "GET" in methods and "HEAD" not in methods else allow


async def _api_page(request: Request) -> Response:
    """Answer GET on each of `API_PAGE_PATHS`."""
    headers = {"x-content-type-options": "nosniff"}
    name = request.url.path.rpartition("/docs")[2].removeprefix("/")
    if name:
        body = _SCRIPT.encode() if name == "page.js" else await asyncio.to_thread(_file, name)
        # The page asks for them by version: another version is another address.
        headers["cache-control"] = "public, max-age=86400, immutable"
        return Response(body, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
    page = _PAGE.format(title=html.escape(request.app.title), version=f"{__version__}-{version(_PACKAGE)}")
    headers |= {"cache-control": "no-cache", "content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
    return Response(page, headers=headers, media_type="text/html")


def _file(name: str) -> bytes:
    return (files(_PACKAGE) / "static" / name).read_bytes()
