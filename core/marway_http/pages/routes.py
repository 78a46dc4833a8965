"""What every port answers in the same way: what it is, how it does, its API's pages, and HEAD wherever GET is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marway_http.pages.about import ABOUT_CONTENT, About, about_answer
from marway_http.pages.api_page import PATHS, api_page

__all__ = ["HeadAsGet", "Health", "add_process_routes", "with_head"]


class Health(BaseModel):
    """All is well; anything else is answered with a problem."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


def add_process_routes(app: FastAPI, about: About, metrics_of: Callable[[], CollectorRegistry]) -> None:
    """Add `/`, `/healthz`, `/metrics`, and the API's pages, which the document does not have.

    Args:
        app: Gets them.
        about: What `/` says.
        metrics_of: Gives the metrics; asked at each request, because they may exist only while the app runs.
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
        body, headers = about_answer(about, request.headers.get("accept"))
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
        return Response(generate_latest(metrics_of()), media_type=CONTENT_TYPE_LATEST)

    app.router.routes += [Route(path, api_page, methods=["GET"]) for path in PATHS]


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
