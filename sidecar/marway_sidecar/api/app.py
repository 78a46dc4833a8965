"""The sidecar's HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from marway.errors import InvalidRequest, MarwayError, clip
from marway.wire import problems
from marway.wire.headers import Outcome
from marway.wire.request import read_ids
from marway_http.channel import CHANNEL
from marway_http.eager import in_task
from marway_http.hosts import HostGuard
from marway_http.pages.routes import HeadAsGet, with_head
from marway_sidecar.api.call import Call, prediction_at
from marway_sidecar.api.failures import problem_response
from marway_sidecar.api.openapi import describe
from marway_sidecar.api.predict import Predictor
from marway_sidecar.api.routes import ABOUT, add_routes
from marway_sidecar.sidecar import Sidecar

__all__ = ["SidecarApp", "create_app"]

Answering = Coroutine[Any, Any, None]


class SidecarApp(FastAPI):
    """FastAPI, past whose router and middleware predictions go: those cost a small one more than all else here.

    The routes at which ``predictor`` answers, FastAPI only documents. ``hosts`` says who may ask.
    """

    def __init__(self, predictor: Predictor, hosts: HostGuard, **options: Any) -> None:
        super().__init__(**options)
        self._predictor = predictor
        self._hosts = hosts

    def guard(self, headers: Iterable[tuple[bytes, bytes]]) -> Response | None:
        """Return the refusal of an HTTP request with these headers, or None where it may ask."""
        error = self._hosts(headers)
        if error is None:
            return None
        request_id = read_ids(_decoded(headers).get).request_id
        return problem_response(error, request_id=request_id, outcome=Outcome.REFUSED)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Answering:
        if scope["type"] == "http" and scope["method"] == "POST":
            named = prediction_at(scope["path"])
            if named is not None and self._hosts(scope["headers"]) is None:
                client: tuple[str, int] | None = scope["client"]
                sent = _decoded(scope["headers"])
                call = Call(sent, named, client[0] if client is not None else "", scope[CHANNEL])
                return self._predictor.answer(call)
        return self._answer_routed(scope, receive, send)

    async def _answer_routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        await in_task()
        refusal = self.guard(scope["headers"]) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def create_app(sidecar: Sidecar) -> SidecarApp:
    """Return the application that serves ``sidecar``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with sidecar.running():
            yield

    settings = sidecar.settings
    hosts = HostGuard(
        settings.allowed_hosts, bound=settings.host, setting="allowed_hosts (MARWAY_SIDECAR_ALLOWED_HOSTS)"
    )
    app = SidecarApp(
        sidecar.predictor,
        hosts,
        title=ABOUT.name,
        version=ABOUT.version,
        description=ABOUT.description,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the body of a predict request
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={
            HTTPException: _not_routed,
            RequestValidationError: _invalid,
            MarwayError: _refused,
            Exception: _unexpected,
        },
    )
    app.add_middleware(HeadAsGet)
    app.openapi = describe(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    add_routes(app, sidecar)
    return app


async def _not_routed(request: Request, exc: Exception) -> Response:
    """Answer for the router: no such route, or not with this method."""
    assert isinstance(exc, HTTPException)
    path = clip(request.url.path, 200)
    known = {
        404: ("not_found", "Not found", f"there is nothing at {request.method} {path}: see /docs"),
        405: ("method_not_allowed", "Method not allowed", f"{path} does not take {request.method}: see /docs"),
    }
    code, title, detail = known.get(exc.status_code, ("invalid_request", "Invalid request", str(exc.detail)))
    request_id = read_ids(request.headers.get).request_id
    problem = problems.Problem(title=title, status=exc.status_code, detail=detail, code=code, request_id=request_id)
    headers = dict(exc.headers or {})
    if "Allow" in headers:
        headers["Allow"] = with_head(headers["Allow"])
    return Response(problem.body(), exc.status_code, headers, media_type=problems.CONTENT_TYPE)


async def _invalid(request: Request, exc: Exception) -> Response:
    """Answer for a parameter that FastAPI refused."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    where = " ".join(map(str, first["loc"]))
    return await _refused(request, InvalidRequest(f"{clip(where, 80)}: {clip(first['msg'], 200)}"))


async def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, MarwayError)
    return problem_response(exc, request_id=read_ids(request.headers.get).request_id)


async def _unexpected(_: Request, exc: Exception) -> Response:
    # The traceback goes to the log by the server; the caller learns no internals.
    return problem_response(MarwayError("something unexpected went wrong in the sidecar: its log has the details"))
